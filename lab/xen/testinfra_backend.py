"""testinfra over the connection that is already there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testinfra.backend.base import (  # type: ignore[import-untyped]
    BaseBackend,
    CommandResult,
)
from testinfra.host import Host  # type: ignore[import-untyped]

from lab.core.deadline import Deadline

if TYPE_CHECKING:
    from lab.xen.dom0 import Dom0

# testinfra's calls take no deadline; no question about dom0 should need longer, emulated or not.
_COMMAND_SECONDS = 120.0


class Dom0Backend(BaseBackend):  # type: ignore[misc]  # testinfra is typed but not marked so
    """Runs testinfra's commands through ``Dom0``.

    Args:
        dom0: the connection.
    """

    NAME = "dom0"

    def __init__(self, dom0: Dom0) -> None:
        super().__init__(dom0.host)
        self._dom0 = dom0

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run a command with testinfra's quoting of ``args``.

        Raises:
            DeadlineExpired: it took longer than two minutes.
            LabBroken: the connection is lost.
        """
        line = self.get_command(command, *args)
        raw = self._dom0.run_raw(line, Deadline(_COMMAND_SECONDS))
        return self.result(raw.exit_code, self.encode(line), raw.stdout, raw.stderr)

    def get_encoding(self) -> str:
        """UTF-8: asking dom0 would start a Python there."""
        return "UTF-8"


def host_over(dom0: Dom0) -> Host:
    """A testinfra host whose commands go through ``dom0``."""
    backend = Dom0Backend(dom0)
    host = Host(backend)
    backend.set_host(host)
    return host
