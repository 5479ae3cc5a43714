"""A virtual block device's two ends, and attaching until both are Connected."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, GuestCrashed, LabBroken
from lab.core.journal import verb
from lab.xen.blockspec import BlockSpec, vdev_name
from lab.xen.complaints import complaint
from lab.xen.domain import Domain
from lab.xen.errors import BackendFailed, FrontendFailed, NoSuchDevice
from lab.xen.remote_wait import list_nodes, wait_loop
from lab.xen.states import XenbusState
from lab.xen.toolstack import Toolstack
from lab.xen.xenstore import Xenstore, parse_ls

# Part of the caller's time that dom0 does not wait for, so that it can still explain a
# failure: that takes an `xl list`, an `xl dmesg` and a few small processes.
_REPORT_SHARE = 0.2
_REPORT_MAX_SECONDS = 12.0
# When dom0's script itself hangs, the explanation is fetched on this time, over the deadline.
_POST_MORTEM_SECONDS = 20.0

_MARK = "@pvlab:"
# Lines that explain a failure, in the logs of dom0 and of the hypervisor.
_TELLING = re.compile(r"error|fail|fatal|crash|panic|does not exist|cannot|unable|\bvbd\b", re.I)
# What the backend says of each connection that works (Linux, drivers/block/xen-blkback/xenbus.c,
# connect_ring; 2.6.18 names the ring).
_USUAL = re.compile(r": (?:using \d+ queues|ring-ref \d+), ")


@dataclass(frozen=True, slots=True)
class _Nodes:
    """One end's directory in xenstore.

    Attributes:
        path: its path; empty when it is not there.
        nodes: values by name below ``path``.
    """

    path: str
    nodes: Mapping[str, str] = field(repr=False)

    @property
    def state(self) -> XenbusState:
        """Its state; UNKNOWN when it has none."""
        return XenbusState.parse(self.nodes.get("state"))

    def number(self, name: str) -> int | None:
        """A node's value as a number; None when absent or not one."""
        value = self.nodes.get(name, "")
        return int(value) if re.fullmatch(r"-?\d+", value) else None


@dataclass(frozen=True, slots=True)
class BackendNodes(_Nodes):
    """The end in dom0."""

    @property
    def hotplug_status(self) -> str:
        """``connected``, ``error``, or empty while the hotplug script has not finished."""
        return self.nodes.get("hotplug-status", "")

    @property
    def hotplug_error(self) -> str:
        """What the hotplug script complained of; empty when it did not."""
        return self.nodes.get("hotplug-error", "")

    @property
    def params(self) -> str:
        """The backing device or file."""
        return self.nodes.get("params", "")

    @property
    def mode(self) -> str:
        """``r``, ``w`` or ``w!``."""
        return self.nodes.get("mode", "")

    @property
    def physical_device(self) -> str:
        """``major:minor`` of the backing device, in hexadecimal."""
        return self.nodes.get("physical-device", "")

    @property
    def sectors(self) -> int | None:
        """Size as published to the guest, in units of 512 bytes (public/io/blkif.h)."""
        return self.number("sectors")

    @property
    def sector_size(self) -> int | None:
        """Logical sector size as published, in bytes."""
        return self.number("sector-size")

    @property
    def info(self) -> int | None:
        """Flags: 1 CD-ROM, 2 removable, 4 read-only."""
        return self.number("info")

    @property
    def backing_ready(self) -> bool:
        """Whether the backing device or file is in place."""
        if self.hotplug_error:
            return False
        # Only the kernel's backend has a hotplug script; QEMU opens its file itself.
        return self.hotplug_status == "connected" or (
            not self.hotplug_status and "/backend/vbd/" not in self.path
        )

    @property
    def ready(self) -> bool:
        """Whether dom0 has done its part and the guest is awaited."""
        return self.backing_ready and self.state in (
            XenbusState.INIT_WAIT,
            XenbusState.INITIALISED,
            XenbusState.CONNECTED,
        )


@dataclass(frozen=True, slots=True)
class FrontendNodes(_Nodes):
    """The end in the guest."""

    @property
    def backend_path(self) -> str:
        """Where its backend is."""
        return self.nodes.get("backend", "")

    @property
    def ring_ref(self) -> int | None:
        """Grant reference of its ring; None before the driver has set one up."""
        return self.number("ring-ref")

    @property
    def event_channel(self) -> int | None:
        """Its event channel; None before the driver has set one up."""
        return self.number("event-channel")

    @property
    def protocol(self) -> str:
        """Ring ABI, such as ``x86_32-abi``; drivers of 2007 publish none."""
        return self.nodes.get("protocol", "")


@dataclass(frozen=True, slots=True)
class Vbd:
    """A virtual block device.

    Attributes:
        domid: the guest's domain id.
        devid: virtual device number.
        vdev: its name, such as ``hdc``.
        backend: the end in dom0.
        frontend: the end in the guest.
        nodes: all nodes of both, by whole path.
    """

    domid: int
    devid: int
    vdev: str
    backend: BackendNodes
    frontend: FrontendNodes
    nodes: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, domid: int, devid: int, nodes: Mapping[str, str]) -> Vbd:
        """Pick the two ends of a device out of xenstore nodes."""
        front_path = frontend_path(domid, devid)
        front = _below(front_path, nodes)
        back_path = front.get("backend", "") or next(
            (
                path.removesuffix("/frontend")
                for path, value in nodes.items()
                if path.endswith("/frontend") and value == front_path
            ),
            "",
        )
        back = _below(back_path, nodes) if back_path else {}
        return cls(
            domid=domid,
            devid=devid,
            vdev=vdev_name(devid),
            backend=BackendNodes(back_path if back else "", back),
            frontend=FrontendNodes(front_path if front else "", front),
            nodes=dict(nodes),
        )

    @property
    def connected(self) -> bool:
        """Whether both ends are Connected."""
        return self.backend.state == self.frontend.state == XenbusState.CONNECTED

    @property
    def frontend_failed(self) -> bool:
        """Whether an unconnected device is the guest's doing.

        So it is once dom0 is ready. A backend that is closing follows a frontend that closed,
        or could not use the ring that the frontend published: both after the frontend moved.
        """
        return self.backend.ready or (
            self.backend.backing_ready
            and self.frontend.state
            in (
                XenbusState.INITIALISED,
                XenbusState.CONNECTED,
                XenbusState.CLOSING,
                XenbusState.CLOSED,
            )
        )

    @property
    def words(self) -> str:
        """Both states and the hotplug status, for messages."""
        return (
            f"backend {_state(self.backend)}, frontend {_state(self.frontend)}, "
            f"hotplug {self.backend.hotplug_status or 'not reported'}"
        )

    def stuck(self, verb: str) -> str:
        """What a driver that hangs leaves; see ``DriverFailure.stuck``.

        Args:
            verb: what does not end: ``attach`` or ``detach``.
        """
        ends = (("backend", self.backend), ("frontend", self.frontend))
        states = ", ".join(
            f"{name} {end.state.word if end.path else 'absent'}" for name, end in ends
        )
        return f"{verb}: {states}"


def frontend_path(domid: int, devid: int) -> str:
    """xenstore directory of a guest's end."""
    return f"/local/domain/{domid}/device/vbd/{devid}"


def backend_path(domid: int, devid: int, kind: str = "vbd") -> str:
    """xenstore directory of dom0's end.

    Args:
        domid: the guest's domain id.
        devid: virtual device number.
        kind: ``vbd`` (in the kernel) or ``qdisk`` (in QEMU).
    """
    return f"/local/domain/0/backend/{kind}/{domid}/{devid}"


@verb
def read(xenstore: Xenstore, domid: int, devid: int, deadline: Deadline) -> Vbd | None:
    """A device as it is now; None when the guest has none of that number."""
    front = xenstore.ls(frontend_path(domid, devid), deadline)
    if not front:
        return None
    back_path = front.get(f"{frontend_path(domid, devid)}/backend", "")
    back = xenstore.ls(back_path, deadline) if back_path else {}
    return Vbd.of(domid, devid, {**front, **back})


@verb
def attach(
    toolstack: Toolstack,
    xenstore: Xenstore,
    domain: Domain,
    spec: BlockSpec,
    deadline: Deadline,
    *,
    while_waiting: Callable[[], None] | None = None,
) -> Vbd:
    """Attach a block device and wait until both its ends are Connected.

    One command in dom0 does all of it. The toolstack's success says only that dom0's side is
    set up, so the script then sleeps in ``xenstore-watch`` on both states and on the domain's
    end (``@releaseDomain``, which xenstored also fires when a domain shuts down and is kept).
    ``xl list`` is asked only after such an event, and after 3 s and then each 10 s without
    news, for guests that died before the watches were set.

    Args:
        toolstack: which dialect.
        xenstore: used to see what is there when dom0's script does not answer.
        domain: the guest.
        spec: what to attach as which device.
        deadline: when to give up; part of it is kept back for collecting explanations.
        while_waiting: called about once a second; what it raises ends the wait. For
            crashes that neither xenstore nor the toolstack shows, such as a bugcheck.

    Returns:
        The device, with the nodes of the same moment.

    Raises:
        UsageError: no such domain, device in use, no such volume.
        LabBroken: dom0's side is at fault; its hotplug script failed, or the backend never
            came to InitWait.
        FrontendFailed: dom0's side is ready and the guest's driver did not connect.
        GuestCrashed: the guest's domain ended or shut down meanwhile.
        DeadlineExpired: dom0 no longer answers at all.
    """
    devid = spec.devid
    script = _script(
        toolstack,
        domain.domid,
        devid,
        toolstack.command(*toolstack.block_attach_words(domain, spec)),
        kind="vbd" if spec.kind == "phy" else "qdisk",
        judge=_JUDGE_ATTACH,
        deadline=deadline,
    )
    what = f"attaching {spec} to {domain.name}"
    report = _ask(
        toolstack, xenstore, script, "block-attach", domain.domid, devid, deadline, while_waiting
    )
    vbd = report.vbd
    if report.verdict == "connected":
        return vbd
    if report.verdict == "refused":
        raise report.complaint()
    message = f"{what}: {vbd.words}"
    if report.verdict == "ended":
        raise GuestCrashed(
            f"{what}: the guest's domain {report.domain_words}; {vbd.words}",
            evidence=report.evidence,
        )
    if not vbd.frontend_failed:
        raise BackendFailed(
            _with_reason(
                message, (vbd.backend.hotplug_error, *report.device_errors, *report.telling)
            ),
            evidence=report.evidence,
        )
    ring = "" if vbd.frontend.ring_ref is None else f", ring {vbd.frontend.ring_ref}"
    raise FrontendFailed(
        _with_reason(
            f"{message}{ring or ', no ring'} after {deadline.elapsed:.0f} s",
            (*report.device_errors, *report.telling),
        ),
        evidence=report.evidence,
        stuck=vbd.stuck("attach") if report.verdict == "pending" else "",
    )


@verb
def detach(
    toolstack: Toolstack,
    xenstore: Xenstore,
    domain: Domain,
    devid: int,
    deadline: Deadline,
    *,
    force: bool = False,
    while_waiting: Callable[[], None] | None = None,
) -> None:
    """Detach a block device and wait until its backend is gone from xenstore.

    Args:
        toolstack: which dialect.
        xenstore: used to see what is there when dom0's script does not answer.
        domain: the guest.
        devid: virtual device number.
        deadline: when to give up.
        force: do not wait for the guest to let go.
        while_waiting: as for ``attach``.

    Raises:
        UsageError: no such domain or device.
        LabBroken: dom0 did not let go although the guest did.
        FrontendFailed: the guest's driver did not let go.
        GuestCrashed: the guest's domain ended or shut down meanwhile.
    """
    script = _script(
        toolstack,
        domain.domid,
        devid,
        toolstack.command(*toolstack.block_detach_words(domain, devid, force=force)),
        kind="vbd",
        judge=_JUDGE_DETACH,
        deadline=deadline,
    )
    report = _ask(
        toolstack, xenstore, script, "block-detach", domain.domid, devid, deadline, while_waiting
    )
    if report.verdict == "detached":
        return
    vbd = report.vbd
    refusal = report.complaint() if report.result.exit_code else None
    if isinstance(refusal, NoSuchDevice) or (refusal and not vbd.backend.path):
        raise refusal
    message = f"detaching {vdev_name(devid)} from {domain.name}: {vbd.words}"
    if report.verdict == "ended":
        raise GuestCrashed(
            f"{message}; the guest's domain {report.domain_words}", evidence=report.evidence
        )
    if vbd.frontend.path and vbd.frontend.state != XenbusState.CLOSED:
        raise FrontendFailed(
            _with_reason(message, (*report.device_errors, *report.telling)),
            evidence=report.evidence,
            stuck=vbd.stuck("detach"),
        )
    raise BackendFailed(_with_reason(message, report.telling), evidence=report.evidence)


@dataclass(frozen=True, slots=True)
class _Report:
    """What dom0's script printed.

    Attributes:
        verdict: ``connected``, ``detached``, ``refused`` (the toolstack failed), ``closed``
            (an end gave up), ``hotplug`` (its script failed), ``ended`` (the domain did) or
            ``pending`` (time is up).
        result: of the toolstack's command alone.
        vbd: both ends.
        domain_words: what became of the domain.
        device_errors: what either end wrote to its ``error`` node, the frontend's first.
        logs: sections of log lines by name.
    """

    verdict: str
    result: CommandResult
    vbd: Vbd
    domain_words: str
    device_errors: tuple[str, ...]
    logs: Mapping[str, tuple[str, ...]]

    def complaint(self) -> Exception:
        """The error the toolstack's refusal stands for, with the hotplug script's words."""
        known = complaint(self.result)
        hotplug = self.vbd.backend.hotplug_error
        if hotplug and hotplug not in str(known) and isinstance(known, LabBroken):
            return BackendFailed(f"{known.message}; {hotplug}", evidence=self.evidence)
        return known

    @property
    def telling(self) -> tuple[str, ...]:
        """The last log lines that look like an explanation, hotplug first; three at most."""
        found = [
            line
            for name in ("hotplug", "kernel", "xen")
            for line in [
                one
                for one in self.logs.get(name, ())
                if _TELLING.search(one) and not _USUAL.search(one)
            ][-2:]
        ]
        return tuple(found[:3])

    @property
    def evidence(self) -> tuple[str, ...]:
        """Everything, line by line."""
        lines = [f"{path} = {value!r}" for path, value in self.vbd.nodes.items()]
        lines += [f"error: {one}" for one in self.device_errors]
        for name, section in self.logs.items():
            lines += [f"{name}: {one}" for one in section]
        return tuple(lines)


# Prints sections headed by a mark; nothing else of dom0's starts a line with it.
_SCRIPT = r"""
fe=@FE@; be=@BE@; verdict=pending; ended=
mark() { printf '\n@MARK@%s\n' "$1"; }
look() {
  nodes=$(@LIST@)
  path=${nodes#*"$fe/backend = \""}
  [ "$path" != "$nodes" ] || return
  path=${path%%\"*}
  [ "$path" != "$be" ] || return
  be=$path
  nodes=$(@LIST@)
}
domain() {
  if row=$(@LISTDOMAIN@ 2>&1); then
    case $row in
      *' '[r-][b-][p-]s[a-zA-Z?-][d-]' '*) verdict=ended; ended='shut down' ;;
      *' '[r-][b-][p-][s-]c[d-]' '*) verdict=ended; ended='crashed' ;;
      *' '[r-][b-][p-][s-][a-zA-Z?-]d' '*) verdict=ended; ended='is dying' ;;
    esac
  else
    case $row in
      *'invalid domain'*|*'does not exist'*|*'o such process'*) verdict=ended; ended='is gone' ;;
    esac
  fi
}
quiet() { judge; [ "$verdict" != pending ] || domain; }
finish() {
  # A domain that ended explains more than what became of its nodes.
  case $verdict in pending|closed|hotplug) domain ;; esac
  mark verdict; echo "$verdict"
  mark nodes; echo "$nodes"
  case $verdict in connected|detached) return ;; esac
  mark ended; echo "$ended"
  mark domain; echo "$row"
  mark error
  xenstore-ls @ERROR@ 2>/dev/null
  xenstore-ls "/local/domain/0/error/${be#/local/domain/0/}" 2>/dev/null
  mark hotplug; tail -n 20 /var/log/xen/xen-hotplug.log 2>/dev/null
  mark xend; cat /var/log/xen/xend.log.1 /var/log/xen/xend.log 2>/dev/null | tail -n 20
  mark kernel; dmesg 2>/dev/null | grep -iE 'vbd|blkback|xen-blk' | tail -n 10
  mark xen; @DMESG@ 2>/dev/null | tail -n 15
}
"""

_JUDGE_ATTACH = r"""
judge() {
  look
  case $nodes in
    *"$fe/state = \"4\""*"$be/state = \"4\""*) verdict=connected ;;
    *"$be/hotplug-status = \"error\""*|*"$be/hotplug-error = "*) verdict=hotplug ;;
    *"$fe/state = \"5\""*|*"$fe/state = \"6\""*) verdict=closed ;;
    *"$be/state = \"5\""*|*"$be/state = \"6\""*) verdict=closed ;;
    *) case $1 in @releaseDomain) domain ;; esac ;;
  esac
}
"""

_JUDGE_DETACH = r"""
judge() {
  look
  case $nodes in
    *"$be/"*) case $1 in @releaseDomain) domain ;; esac ;;
    *) verdict=detached ;;
  esac
}
"""

_MAIN = r"""
look_before
mark command
@COMMAND@ 2>&1
status=$?
mark status; echo "$status"
if [ "$status" != 0 ]; then look; verdict=refused; finish; exit; fi
judge
if [ "$verdict" = pending ]; then await; else finish; fi
"""


def _script(
    toolstack: Toolstack,
    domid: int,
    devid: int,
    command: str,
    *,
    kind: str,
    judge: str,
    deadline: Deadline,
) -> str:
    """The shell script that runs ``command`` and waits for what ``judge`` wants."""
    kept = min(_REPORT_MAX_SECONDS, deadline.remaining * _REPORT_SHARE)
    seconds = max(1, int(deadline.remaining - kept))
    # Not last: the firing of the last one, when it is set, is judged.
    loop = wait_loop(
        ["@releaseDomain", "$fe/state", "$be/state", "$be/hotplug-status"],
        seconds,
        watches=toolstack.has_watches,
    )
    # One process lists both ends but stops at a missing one, and a detached frontend may go
    # before its backend.
    detaching = judge is _JUDGE_DETACH
    listings = [["$fe"], ["$be"]] if detaching else [["$fe", "$be"]]
    # The backend's kind is only guessed until the frontend's nodes are seen.
    before = "look" if detaching else ":"
    words = {
        "@FE@": shlex.quote(frontend_path(domid, devid)),
        "@BE@": shlex.quote(backend_path(domid, devid, kind)),
        "@MARK@": _MARK,
        "@LIST@": "; ".join(
            list_nodes(paths, whole_paths=toolstack.has_watches) for paths in listings
        ),
        "@LISTDOMAIN@": toolstack.command("list", str(domid)),
        "@DMESG@": toolstack.command("dmesg"),
        "@ERROR@": shlex.quote(f"/local/domain/{domid}/error/device/vbd/{devid}"),
        "@COMMAND@": command,
    }
    script = _SCRIPT + judge + loop + _MAIN.replace("look_before", before)
    for word, value in words.items():
        script = script.replace(word, value)
    return script


def _ask(
    toolstack: Toolstack,
    xenstore: Xenstore,
    script: str,
    verb: str,
    domid: int,
    devid: int,
    deadline: Deadline,
    while_waiting: Callable[[], None] | None,
) -> _Report:
    """Run the script and read its report."""
    try:
        result = toolstack.dom0.run(script, deadline, while_waiting=while_waiting)
    except DeadlineExpired as late:
        # The script ends before the deadline, so it hangs in the toolstack's own command.
        # Whatever the guest does meanwhile, that is dom0's failure.
        vbd = read(xenstore, domid, devid, Deadline(_POST_MORTEM_SECONDS))
        waits = vbd is not None and not vbd.backend.hotplug_status
        raise BackendFailed(
            f"dom0 did not finish `{toolstack.program} {verb}` within {late.seconds:.0f} s; "
            + (vbd.words if vbd else "there is no frontend")
            + (
                f"; it waits up to {toolstack.hotplug_wait_s:.0f} s for its hotplug script"
                if waits and late.seconds < toolstack.hotplug_wait_s
                else ""
            ),
            evidence=tuple(f"{path} = {value!r}" for path, value in vbd.nodes.items())
            if vbd
            else (),
            hint="see dom0's logs in /var/log/xen",
        ) from late
    return _read_report(result, toolstack.command(verb), domid, devid)


def _read_report(result: CommandResult, command: str, domid: int, devid: int) -> _Report:
    sections: dict[str, list[str]] = {}
    name = ""
    for line in result.lines:
        if line.startswith(_MARK):
            name = line.removeprefix(_MARK)
            sections[name] = []
        elif line.strip():
            sections.setdefault(name, []).append(line)
    if "verdict" not in sections or not sections["verdict"]:
        raise LabBroken(
            "dom0's attach script ended without a verdict: "
            + (result.stderr.strip().splitlines() or ["no message"])[-1]
        )
    toolstack_result = CommandResult(
        command=command,
        exit_code=int((sections.get("status") or ["0"])[0]),
        stdout="\n".join(sections.get("command", [])),
        stderr="",
        seconds=result.seconds,
        where=result.where,
    )
    # Both directories hold one node of the same name, so they are read line by line.
    errors = [
        value
        for line in sections.get("error", ())
        for value in parse_ls(line.strip(), "/").values()
    ]
    return _Report(
        verdict=sections["verdict"][0],
        result=toolstack_result,
        vbd=Vbd.of(domid, devid, parse_ls("\n".join(sections.get("nodes", ())))),
        domain_words=(sections.get("ended") or [""])[0],
        device_errors=tuple(errors),
        logs={
            name: tuple(sections.get(name, ()))
            for name in ("command", "domain", "hotplug", "xend", "kernel", "xen")
        },
    )


def _below(path: str, nodes: Mapping[str, str]) -> dict[str, str]:
    prefix = f"{path}/"
    return {
        name.removeprefix(prefix): value for name, value in nodes.items() if name.startswith(prefix)
    }


def _state(end: _Nodes) -> str:
    return end.state.words if end.path else "absent"


def _with_reason(message: str, reasons: tuple[str, ...]) -> str:
    told = [" ".join(one.split()) for one in reasons if one.strip()]
    return message + (f": {'; '.join(told[:3])}" if told else "")
