"""How attaching, detaching and the toolstack fail, each with its blame."""

from __future__ import annotations

from lab.core.errors import DriverFailure, LabBroken, UsageError


class NoSuchDomain(UsageError):
    """The toolstack knows no domain of that name or id.

    A mistyped name, or a guest that has gone: whoever knew it alive decides which.
    """


class DeviceInUse(UsageError):
    """The virtual device, or the backing one, is already attached somewhere."""


class NoSuchDevice(UsageError):
    """The virtual device to detach is not there."""


class BackingMissing(UsageError):
    """The backing volume or file does not exist, or is not what the specification says."""


class HotplugFailed(LabBroken):
    """dom0's hotplug script did not connect the backing device."""


class ToolstackFailed(LabBroken):
    """A toolstack command failed for any other reason."""


class ToolstackDown(ToolstackFailed):
    """The toolstack's daemon does not run in dom0, or does not answer."""


class OutOfMemory(LabBroken):
    """The host has not enough memory for a domain."""


class BackendFailed(LabBroken):
    """dom0's end of a device did not come up, or did not go away.

    Args:
        message: one line, with both states in words.
        evidence: xenstore nodes and log lines that explain it.
    """

    def __init__(self, message: str, *, evidence: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.evidence = evidence


class FrontendFailed(DriverFailure):
    """dom0's end of a device did its part and the guest's driver did not do its own.

    Args:
        message: one line, with both states in words.
        evidence: xenstore nodes and log lines that explain it.
        stuck: as for ``DriverFailure``; empty when the driver gave up by itself.
    """

    def __init__(
        self, message: str, *, evidence: tuple[str, ...] = (), hint: str = "", stuck: str = ""
    ) -> None:
        super().__init__(message, hint=hint, stuck=stuck)
        self.evidence = evidence
