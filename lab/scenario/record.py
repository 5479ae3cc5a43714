"""Listening to a test: the scenario that it really ran.

Calls of the lab's nouns (``lab.core.journal``) become steps. Calls that only look are left out,
and what a scenario cannot express becomes an opaque step that says so, whatever it is: a noun's
new method is opaque until somebody says here what it means.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from lab.core.errors import GuestCrashed
from lab.core.journal import Call
from lab.scenario.model import (
    OPERATIONS,
    AnyStep,
    Attach,
    Detach,
    Opaque,
    Scenario,
    StopIo,
    Together,
    Wait,
)
from lab.scenario.sense import problems
from lab.scenario.text import words

if TYPE_CHECKING:
    from lab.guest.diskio import IoResult
    from lab.suite.at_once import Move
    from lab.suite.backing import Backing
    from lab.xen.blockspec import BlockSpec
    from lab.xen.vbd import Vbd

EVIDENCE_THREADS = "evidence-"
"""How the names of threads begin that read evidence (``lab.evidence.pull``): not the test."""

MOST = 5_000
"""Most steps that are kept: a test that loops for hours says that it did."""

_SHOWN = 200

LOOKS = frozenset(
    f"{noun}.{verb}"
    for noun, verbs in {
        "Toolstack": "command list find block_attach_words block_detach_words block_list "
        "migrate_here_words dmesg config info dump_core automatic_cores configuration",
        "Xenstore": "read ls wait",
        "VolumeGroup": "list",
        "Dom0": "connect close read_text get tunnel",
        "Channel": "wait_ready alive flush close",
        "CrashMonitor": "mark log_anew check raise_if_seen guard retire",
        "BootMenu": "read",
        "DbgView": "start stop read lines",
        "Disks": "list rescan volumes partitions detail drives wait_for_disks",
        "DriverStore": "status hardware_ids version rescan new_log_lines",
        "Files": "get get_bytes read_text",
        "Backing": "read digest written",
        "Job": "text generations wait_until",
        "Jitter": "delay order choose number",
        "Place": "connect refresh_domain guest_serial read_offline dump_core health check "
        "disconnect close",
        "vbd": "read",
        "leaks": "holdings",
    }.items()
    for verb in verbs.split()
)
"""Calls that change nothing, or nothing that a scenario is about."""

_PLAIN: Mapping[str, Mapping[str, Any]] = {
    "Toolstack.pause": {"op": "pause"},
    "Toolstack.unpause": {"op": "unpause"},
    "Toolstack.destroy": {"op": "destroy"},
    "DriverStore.disable": {"op": "disable_driver"},
    "DriverStore.enable": {"op": "enable_driver"},
    "DriverStore.remove": {"op": "remove_driver"},
    "lifecycle.reboot": {"op": "reboot"},
    "lifecycle.power_off": {"op": "power_off"},
    "lifecycle.save": {"op": "save"},
    "lifecycle.restore": {"op": "restore"},
    "lifecycle.migrate": {"op": "migrate"},
}
_FAULTS: Mapping[str, str] = {
    "Mapped.heal": "heal",
    "Mapped.fail": "error",
    "Mapped.delay": "delay",
    "Mapped.flake": "flakey",
    "Mapped.refuse_writes": "refuse_writes",
    "Mapped.suspend": "stall",
    "Mapped.resume": "go_on",
}
_OPTIONS = ("gen", "gens", "seed", "block", "threads", "order", "shift", "flush")


@dataclass
class _Known:
    """A backing device that the test made.

    Attributes:
        label: in the scenario; empty until it is attached.
        how: the fields of its first attach.
        sectors: its length.
        vdev: the virtual device that it is attached as; empty when it is not.
        ends: both ends when they were connected.
        number: the guest's.
    """

    how: dict[str, Any]
    sectors: int
    label: str = ""
    vdev: str = ""
    ends: Vbd | None = None
    number: int | None = None


@dataclass
class Recorder:
    """Makes steps of calls; a ``lab.core.journal.Listener``.

    Attributes:
        seed: of the test's jitter.
        installed: whether the guest has the driver: a scenario begins there, so the first
            installation is no step of it.
    """

    seed: int = 1
    installed: bool = False
    _steps: list[AnyStep] = field(default_factory=list)
    _by_path: dict[str, _Known] = field(default_factory=dict)
    _jobs: dict[int, tuple[str, object]] = field(default_factory=dict)
    _pending: BaseException | None = None
    _dropped: int = 0

    def heard(self, call: Call) -> None:
        """Note a call; never raises."""
        if threading.current_thread().name.startswith(EVIDENCE_THREADS):
            return
        if call.name in LOOKS:
            return
        try:
            made = self._made(call)
        except Exception as error:
            made = [_opaque(f"{_told(call)} ({type(error).__name__} while it was recorded)")]
        if not made:
            return
        self._forgive()
        self._pending = call.error
        room = max(0, MOST - len(self._steps))
        self._steps += made[:room]
        self._dropped += len(made) - len(made[:room])

    def scenario(self, *, failed: bool, **about: str) -> Scenario:
        """What was heard so far.

        Args:
            failed: whether the test did: then its last step is what it failed at.
            about: words for ``Scenario.described``.
        """
        steps, dropped = list(self._steps), self._dropped
        if failed and steps and getattr(steps[-1], "expect", "ok") == "errors":
            # The test took them for a failure, as it ended here.
            steps[-1] = steps[-1].model_copy(update={"expect": "ok"})
        while bad := [cast("int", path[1]) for path, _ in problems(steps)]:
            for index in sorted(set(bad), reverse=True):
                if isinstance(steps[index], Opaque):
                    # Where not even that can stand, it is only counted: this has to end.
                    del steps[index]
                    dropped += 1
                else:
                    said = f"{words(steps[index])}, which this list does not explain"
                    steps[index] = _opaque(said)
        if dropped:
            about["incomplete"] = f"{dropped} steps more were done"
        return Scenario(seed=self.seed, steps=tuple(steps)).described(**about)

    def _forgive(self) -> None:
        """The step before failed, and the test went on: it may."""
        if self._pending is None or isinstance(self._pending, GuestCrashed) or not self._steps:
            return
        last = self._steps[-1]
        if not isinstance(last, Opaque):
            self._steps[-1] = last.model_copy(update={"may_fail": True})

    # -- calls --------------------------------------------------------------------------

    def _made(self, call: Call) -> Sequence[AnyStep]:
        given = call.arguments
        if (fields := _PLAIN.get(call.name)) is not None:
            return [_step(**fields)]
        if (kind := _FAULTS.get(call.name)) is not None:
            return [self._fault(call, kind)]
        handler: Callable[[Call], Sequence[AnyStep]] | None = {
            "Backings.volume": self._backing,
            "Backings.exact": self._backing,
            "Backings.sparse": self._backing,
            "Backings.file": self._backing,
            "Backings.cached": self._backing,
            "VolumeGroup.create": self._backing,
            "BlockDevices.attach": self._attach,
            "vbd.attach": self._attach,
            "BlockDevices.detach": self._detach_device,
            "vbd.detach": self._detach,
            "at_once.at_once": self._at_once,
            "Backing.wrong": self._check,
            "Mapped.grow": self._grow,
            "DiskIo.size": self._size,
            "DiskIo.write": self._io,
            "DiskIo.verify": self._io,
            "DiskIo.exercise": self._io,
            "DiskIo.bench": self._io,
            "DiskIo.flush": self._io,
            "DiskIo.start": self._start,
            "Job.wait_busy": self._job,
            "Job.end": self._job,
            "Job.result": self._job,
            "Xenstore.write": self._xenstore,
            "Xenstore.rm": self._xenstore,
            "Channel.run": self._in_guest,
            "DriverStore.install": self._install,
            "Runner.run": lambda call: list(call.arguments["scenario"].steps),
        }.get(call.name)
        if handler is not None:
            return handler(call)
        if call.name == "Jitter.point":
            return [_step(op="jitter", up_to=given.get("up_to", 1.0), name=given["name"])]
        if call.name in ("Files.put", "Files.put_bytes"):
            return [_step(op="put_file", path=given["remote"], size_bytes=_length(given))]
        if call.name == "Disks.partition" and (label := self._label(given["disk"])):
            return [
                _step(
                    op="partition",
                    disk=label,
                    letter=given["letter"].upper(),
                    size_mib=given.get("size_mib"),
                )
            ]
        if call.name == "Disks.format":
            file_system = given.get("file_system", "ntfs")
            return [_step(op="format", letter=given["letter"].upper(), file_system=file_system)]
        return [_opaque(_told(call))]

    def _backing(self, call: Call) -> Sequence[AnyStep]:
        if call.error is not None:
            return [_opaque(_told(call))]
        kind = call.name.partition(".")[2]
        made: Backing = call.result.disk if kind == "cached" else call.result
        how: dict[str, Any] = {
            "backing": {"exact": "mapped", "create": "volume"}.get(kind, kind),
            "size": made.sectors,
        }
        for name in ("room", "sector_bytes"):
            if name in call.arguments:
                how[name] = call.arguments[name]
        self._by_path[made.path] = _Known(how, made.sectors)
        return []

    def _attach(self, call: Call) -> Sequence[AnyStep]:
        spec: BlockSpec = call.arguments["spec"]
        step, known = self._attached(spec)
        if step is None or known is None:
            return [_opaque(_told(call))]
        find = call.name == "BlockDevices.attach"
        if call.error is None:
            if find:
                known.ends, disk = call.result
                self._numbered(disk.number, known)
            else:
                known.ends = call.result
        return [step.model_copy(update={"find": find})]

    def _attached(self, spec: BlockSpec) -> tuple[Attach | None, _Known | None]:
        """The step that attaches a backing device, and what is known of that."""
        known = self._by_path.get(spec.path)
        if known is None:
            return None, None
        how: dict[str, Any] = {}
        if not known.label:
            taken = {one.label for one in self._by_path.values()}
            names = (spec.vdev, *(f"{spec.vdev}-{n}" for n in range(2, MOST)))
            known.label = next(name for name in names if name not in taken)
            how = known.how
        known.vdev = spec.vdev
        device = "" if known.label == spec.vdev else spec.vdev
        fields = {"op": "attach", "disk": known.label, "device": device, "mode": spec.mode, **how}
        return cast("Attach", _step(**fields)), known

    def _detach_device(self, call: Call) -> Sequence[AnyStep]:
        return self._detached(call, call.arguments["device"].spec.devid, force=False)

    def _detach(self, call: Call) -> Sequence[AnyStep]:
        force = bool(call.arguments.get("force"))
        return self._detached(call, call.arguments["devid"], force=force)

    def _detached(self, call: Call, devid: int, *, force: bool) -> Sequence[AnyStep]:
        known = next(
            (one for one in self._by_path.values() if one.ends and one.ends.devid == devid), None
        )
        if known is None:
            return [_opaque(_told(call))]
        if call.error is None:
            known.vdev, known.ends, known.number = "", None, None
        return [Detach(disk=known.label, force=force)]

    def _at_once(self, call: Call) -> Sequence[AnyStep]:
        lanes: list[tuple[AnyStep, ...]] = []
        moves: Sequence[Move] = call.arguments["moves"]
        for move in moves:
            before = (Wait(seconds=round(move.delay, 3)),) if move.delay > 0 else ()
            known = self._by_path.get(move.spec.path)
            if known is None:
                return [_opaque(_told(call))]
            if move.kind == "attach":
                step, _ = self._attached(move.spec)
                lanes.append((*before, cast("Attach", step)))
            else:
                known.vdev, known.ends, known.number = "", None, None
                lanes.append((*before, Detach(disk=known.label, force=move.force)))
        return [Together(lanes=tuple(lanes))]

    def _check(self, call: Call) -> Sequence[AnyStep]:
        known = self._of_backing(call)
        if known is None or not known.label:
            # Of a device that no disk of the guest is: a look, whatever it shows.
            return []
        given = call.arguments
        return [
            _step(
                op="check",
                disk=known.label,
                first=given["first"],
                count=given["count"],
                gen=given.get("gen", 1),
                seed=given.get("seed", 1),
            )
        ]

    def _fault(self, call: Call, kind: str) -> AnyStep:
        known = self._of_backing(call)
        if known is None or not known.label:
            return _opaque(_told(call))
        names = ("first", "count", "up_s", "down_s", "ms")
        given = {name: call.arguments[name] for name in names if name in call.arguments}
        return _step(op="fault", disk=known.label, kind=kind, **given)

    def _grow(self, call: Call) -> Sequence[AnyStep]:
        known = self._of_backing(call)
        if known is None or not known.label:
            return [_opaque(_told(call))]
        more = call.arguments["sectors"] - known.sectors
        known.sectors += more
        return [_step(op="fault", disk=known.label, kind="grow", count=more)]

    def _of_backing(self, call: Call) -> _Known | None:
        return self._by_path.get(cast("Backing", call.target).path)

    def _size(self, call: Call) -> Sequence[AnyStep]:
        """A look that tells which disk has which number now."""
        if call.error is None:
            fitting = [
                one
                for one in self._by_path.values()
                if one.vdev and one.sectors == call.result.sectors
            ]
            if len(fitting) == 1:
                self._numbered(call.arguments["disk"], fitting[0])
        return []

    def _numbered(self, number: int, known: _Known) -> None:
        for one in self._by_path.values():
            if one.number == number:
                one.number = None
        known.number = number

    def _label(self, number: int) -> str:
        return next((one.label for one in self._by_path.values() if one.number == number), "")

    def _io(self, call: Call) -> Sequence[AnyStep]:
        given = call.arguments
        label = self._label(given["disk"])
        if not label:
            return [_opaque(_told(call))]
        expect = _expected(call.result)
        action = call.name.partition(".")[2]
        if action == "flush":
            return [_step(op="flush", disk=label, expect=expect)]
        fields = {name: given[name] for name in (*_OPTIONS, "ops") if name in given}
        if "op" in given:
            fields["direction"] = given["op"]
        return [
            _step(
                op="io",
                disk=label,
                action=action,
                first=given["first"],
                count=given["count"],
                expect=expect,
                **fields,
            )
        ]

    def _start(self, call: Call) -> Sequence[AnyStep]:
        given = call.arguments
        label = self._label(given["disk"])
        if not label:
            return [_opaque(_told(call))]
        name = label
        running = {job for job, _ in self._jobs.values()}
        while name in running:
            name += "-again"
        if call.error is None:
            # Kept, so that no other object gets its id.
            self._jobs[id(call.result)] = (name, call.result)
        fields = {one: given[one] for one in _OPTIONS if one in given}
        job = "" if name == label else name
        first, count = given["first"], given["count"]
        return [
            _step(op="start_io", disk=label, job=job, first=first, count=count, wait=0, **fields)
        ]

    def _job(self, call: Call) -> Sequence[AnyStep]:
        if id(call.target) not in self._jobs:
            return [_opaque(_told(call))]
        name, _ = self._jobs[id(call.target)]
        if call.name == "Job.wait_busy":
            return [_step(op="wait_io", job=name, more=call.arguments.get("more", 1))]
        if call.error is None:
            del self._jobs[id(call.target)]
        expect = "any" if _expected(call.result) == "errors" else "ok"
        return [StopIo(job=name, tell=call.name == "Job.end", expect=cast("Any", expect))]

    def _xenstore(self, call: Call) -> Sequence[AnyStep]:
        path = call.arguments["path"]
        for one in self._by_path.values():
            if one.ends is None:
                continue
            if call.name == "Xenstore.rm" and path == one.ends.frontend.path:
                return [_step(op="fault", disk=one.label, kind="remove_nodes")]
            if call.name == "Xenstore.write" and path == f"{one.ends.backend.path}/state":
                state = int(call.arguments["value"])
                return [_step(op="fault", disk=one.label, kind="backend_state", state=state)]
        return [_opaque(_told(call))]

    def _in_guest(self, call: Call) -> Sequence[AnyStep]:
        if call.arguments.get("stdin") is not None:
            return [_opaque(_told(call))]
        refused = call.error is None and not call.result.ok
        return [_step(op="in_guest", command=call.arguments["command"], may_fail=refused)]

    def _install(self, call: Call) -> Sequence[AnyStep]:
        if not self.installed:
            self.installed = call.error is None
            return []
        return [_step(op="install_driver")]


def _step(**fields: Any) -> AnyStep:
    """A step of these fields; opaque when the model does not take them."""
    kind = OPERATIONS[fields["op"]]
    try:
        return cast("AnyStep", kind(**fields))
    except ValidationError:
        said = " ".join(f"{name}={value}" for name, value in fields.items() if name != "op")
        return _opaque(f"{fields['op']} {said}")


def _expected(result: IoResult | None) -> str:
    """What requests came to that the test went on after."""
    return "errors" if result is not None and result.errors and not result.mismatches else "ok"


def _length(given: Mapping[str, Any]) -> int:
    if "data" in given:
        return len(given["data"])
    return int(given["local"].stat().st_size)


def _told(call: Call) -> str:
    """A call in words, for an opaque step."""
    said = [
        f"{name}={value!s}"
        for name, value in call.arguments.items()
        if isinstance(value, str | int | float)
    ]
    return " ".join([call.name, *said])


def _opaque(what: str) -> Opaque:
    plain = "".join(char if char.isprintable() else " " for char in what)
    plain = " ".join(plain.split()) or "something"
    return Opaque(what=plain if len(plain) <= _SHOWN else plain[: _SHOWN - 3] + "...")
