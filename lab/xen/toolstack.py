"""Domains and their devices, through the toolstack's command line in dom0."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.core.journal import noun
from lab.xen.blocklist import BlockList, parse_block_list
from lab.xen.blockspec import BlockSpec, devid
from lab.xen.complaints import complaint
from lab.xen.config import DomainConfig
from lab.xen.dom0 import Dom0
from lab.xen.domain import Domain, parse_list
from lab.xen.errors import NoSuchDomain

_VERSION = ("major", "minor", "extra")

# A domain by its listing (its id is used), its name or its id.
DomainRef = Domain | str | int

# Prints the domain's name as its configuration file gives it.
_NAME_IN_CONFIG = r"""sed -n "s/^ *name *= *[\"']\([^\"']*\)[\"'].*/\1/p" """


@noun
class Toolstack(ABC):
    """What ``xl`` and ``xm`` have in common; a dialect adds the rest.

    Every method that takes a ``DomainRef`` raises ``NoSuchDomain`` when there is none such,
    and ``ToolstackFailed`` or a more telling error of ``lab.xen.errors`` when the command
    fails. None of them blames the driver.

    Args:
        dom0: the connection.
    """

    program: ClassVar[str]
    # Whether dom0 of this toolstack's time has xenstore-watch, timeout and xenstore-ls -f.
    has_watches: ClassVar[bool]
    # How long an attach waits for dom0's hotplug script before it fails by itself, in seconds.
    hotplug_wait_s: ClassVar[float]

    def __init__(self, dom0: Dom0) -> None:
        self.dom0 = dom0

    def command(self, *words: str) -> str:
        """A command line of this toolstack, quoted for dom0's shell."""
        return shlex.join([self.program, *words])

    def _run(self, deadline: Deadline, *words: str) -> CommandResult:
        result = self.dom0.run(self.command(*words), deadline)
        if not result.ok:
            raise complaint(result)
        return result

    def list(self, deadline: Deadline) -> list[Domain]:
        """All running domains, dom0 first."""
        return parse_list(self._run(deadline, "list").stdout)

    def find(self, domain: DomainRef, deadline: Deadline) -> Domain | None:
        """One domain, freshly listed; None when it does not exist."""
        try:
            found = parse_list(self._run(deadline, "list", ref(domain)).stdout)
        except NoSuchDomain:
            return None
        return found[0] if found else None

    def create(self, config_path: str, deadline: Deadline) -> Domain:
        """Start a domain.

        Args:
            config_path: its configuration file, in dom0.
            deadline: when to give up; the domain may then exist.

        Raises:
            LabBroken: it did not start.
        """
        config = shlex.quote(config_path)
        # One shell for three steps; the listing follows the name, which may hold spaces.
        script = (
            f"{self.command('create', config_path)} >&2 || exit\n"
            f"{_NAME_IN_CONFIG} {config}\n"
            f"{self.command('list')}"
        )
        result = self.dom0.run(script, deadline)
        if not result.ok:
            raise complaint(result)
        name, _, table = result.stdout.partition("\n")
        for one in parse_list(table):
            if one.name == name:
                return one
        raise LabBroken(
            f"`{self.command('create', config_path)}` succeeded, but no domain `{name}` is running",
            hint="it may have died at once: see its logs in /var/log/xen",
        )

    @abstractmethod
    def configuration(self, config: DomainConfig) -> str:
        """A domain's configuration as this toolstack reads it, for a file in dom0.

        Raises:
            UsageError: it asks for what this toolstack cannot do.
        """

    def destroy(self, domain: DomainRef, deadline: Deadline) -> None:
        """End a domain at once."""
        self._run(deadline, "destroy", ref(domain))

    def shutdown(self, domain: DomainRef, deadline: Deadline) -> None:
        """Ask a domain's PV drivers to shut it down; returns before it has."""
        self._run(deadline, "shutdown", ref(domain))

    def reboot(self, domain: DomainRef, deadline: Deadline) -> None:
        """Ask a domain's PV drivers to reboot it; returns before it has."""
        self._run(deadline, "reboot", ref(domain))

    def pause(self, domain: DomainRef, deadline: Deadline) -> None:
        """Stop a domain's virtual CPUs."""
        self._run(deadline, "pause", ref(domain))

    def unpause(self, domain: DomainRef, deadline: Deadline) -> None:
        """Let a paused domain run on."""
        self._run(deadline, "unpause", ref(domain))

    @abstractmethod
    def block_attach_words(self, domain: DomainRef, spec: BlockSpec) -> tuple[str, ...]:
        """The words of ``block-attach`` in this dialect, without the program."""

    def block_attach(self, domain: DomainRef, spec: BlockSpec, deadline: Deadline) -> CommandResult:
        """Attach a block device, with no more waiting than the toolstack itself does.

        Success says that dom0's side is set up, not that the guest has taken the device: see
        ``lab.xen.vbd.attach``.
        """
        return self._run(deadline, *self.block_attach_words(domain, spec))

    def block_detach(
        self, domain: DomainRef, vdev: str | int, deadline: Deadline, *, force: bool = False
    ) -> None:
        """Detach a block device.

        Args:
            domain: whose.
            vdev: ``hdc``, ``/dev/hdc`` or the device number.
            deadline: when to give up.
            force: do not wait for the guest to let go.

        Raises:
            NoSuchDevice: it is not attached.
        """
        self._run(deadline, *self.block_detach_words(domain, vdev, force=force))

    def block_detach_words(
        self, domain: DomainRef, vdev: str | int, *, force: bool
    ) -> tuple[str, ...]:
        """The words of ``block-detach``, without the program."""
        # xl takes its options first: getopt stops at the first word.
        options = ("-f",) if force else ()
        return ("block-detach", *options, ref(domain), str(devid(str(vdev))))

    def block_list(self, domain: DomainRef, deadline: Deadline) -> BlockList:
        """A domain's virtual block devices."""
        result = self._run(deadline, "block-list", ref(domain))
        # xl exits 0 whatever happens to a domain of its list.
        if "invalid domain identifier" in result.stderr:
            raise complaint(result)
        return parse_block_list(result.stdout)

    def save(self, domain: DomainRef, path: str, deadline: Deadline) -> None:
        """Write a domain's state to a file in dom0 and end it."""
        self._run(deadline, "save", ref(domain), path)

    def restore(self, path: str, deadline: Deadline) -> None:
        """Start a domain from a file that ``save`` wrote; it gets a new id."""
        self._run(deadline, "restore", path)

    @abstractmethod
    def migrate_here_words(self, domain: DomainRef) -> tuple[str, ...]:
        """The words of a live migration to this very host, without the program."""

    def migrate_here(self, domain: DomainRef, deadline: Deadline) -> None:
        """Migrate a domain, live, to the host that it is on; it gets a new id."""
        self._run(deadline, *self.migrate_here_words(domain))

    def dump_core(self, domain: DomainRef, path: str, deadline: Deadline) -> None:
        """Write a domain's memory to an ELF core file in dom0; the domain is kept."""
        result = self.dom0.run(self._dump_core_command(domain, path), deadline)
        if not result.ok:
            raise complaint(result)

    def _dump_core_command(self, domain: DomainRef, path: str) -> str:
        """Shell text that dumps a domain's memory to a file or device of dom0."""
        return self.command("dump-core", ref(domain), path)

    def trigger(self, domain: DomainRef, what: str, deadline: Deadline) -> None:
        """Send a domain an ``nmi``, ``init``, ``reset``, ``power`` or ``sleep``."""
        self._run(deadline, "trigger", ref(domain), what)

    def sysrq(self, domain: DomainRef, key: str, deadline: Deadline) -> None:
        """Send a domain's PV drivers a SysRq letter; later GPLPV bugchecks on ``B``."""
        self._run(deadline, "sysrq", ref(domain), key)

    def dmesg(self, deadline: Deadline) -> str:
        """The hypervisor's message buffer."""
        return self._run(deadline, "dmesg").stdout

    @abstractmethod
    def config(self, domain: DomainRef, deadline: Deadline) -> dict[str, Any]:
        """A domain's configuration as the toolstack keeps it, in its own structure."""

    def info(self, deadline: Deadline) -> dict[str, str]:
        """Facts of the host: ``xen_version``, ``xen_caps``, ``free_memory`` (MiB), ..."""
        facts = parse_info(self._run(deadline, "info").stdout)
        # xm names only the parts of the version.
        if "xen_version" not in facts and "xen_major" in facts:
            major, minor, extra = (facts.get(f"xen_{one}", "") for one in _VERSION)
            facts["xen_version"] = f"{major}.{minor}{extra}"
        return facts


def ref(domain: DomainRef) -> str:
    """How to call a domain on the command line; a listed one by its id, as names move on."""
    return str(domain.domid) if isinstance(domain, Domain) else str(domain)


def parse_info(text: str) -> dict[str, str]:
    """Parse the ``key : value`` lines of ``xl info`` or ``xm info``."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts[key.strip()] = value.strip()
    return facts
