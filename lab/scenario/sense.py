"""Whether a list of steps makes sense: what can be done where it stands, and what it proves.

Two questions. ``problems`` are steps that cannot be done: a disk that is not attached, a guest
that is paused. ``unexplained`` are steps that can be done and would blame a driver for what the
list itself does: data read that nobody wrote, or that two jobs write at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from lab.scenario.model import (
    AnyStep,
    Attach,
    Check,
    Destroy,
    Detach,
    DisableDriver,
    EnableDriver,
    Fault,
    Flush,
    Format,
    InGuest,
    InstallDriver,
    Io,
    JitterStep,
    Migrate,
    Opaque,
    Partition,
    Path,
    Pause,
    PowerOff,
    PutFile,
    Reboot,
    RemoveDriver,
    Repeat,
    Restore,
    Save,
    StartIo,
    StopIo,
    Together,
    Unpause,
    Wait,
    WaitIo,
    walk,
)

Find = Callable[[AnyStep, Path], str]
"""Says what is wrong with a step, if anything, and notes what it changes."""

_FAILING = ("error", "flakey", "refuse_writes")
_GUEST_STEPS = (
    *(Partition, Format, PutFile, InGuest, Io, StartIo, WaitIo, StopIo, Flush),
    *(Reboot, PowerOff, DisableDriver, EnableDriver, RemoveDriver, InstallDriver),
)
_WHILE_SAVED = (Restore, Wait, JitterStep, Opaque, Check)
_AFTER_THE_END = (Opaque, Check)


def problems(steps: Sequence[AnyStep]) -> Iterator[tuple[Path, str]]:
    """Steps that cannot be done where they stand, each with the reason.

    Lanes are looked at one after the other, as nobody knows in which order they run.
    """
    told = _Told()
    yield from _each(steps, ("steps",), lambda step, _: told.problem(step))


def unexplained(steps: Sequence[AnyStep]) -> Iterator[tuple[Path, str]]:
    """Steps whose failure would be the list's own doing, each with the reason.

    After an opaque step nobody knows what a disk holds, so nothing is said from there on.
    """
    content = _Content(_contested(steps))
    yield from _each(steps, ("steps",), content.doubt)


def repaired(steps: Sequence[AnyStep]) -> tuple[AnyStep, ...]:
    """The steps without those that cannot be done where they stand, and no empty groups."""
    return _without_any(steps, problems)


def explained(steps: Sequence[AnyStep]) -> tuple[AnyStep, ...]:
    """The steps without those that cannot be done, and those that would prove nothing."""
    current = repaired(steps)
    while True:
        fewer = repaired(_without_any(current, unexplained))
        if fewer == current:
            return current
        current = fewer


def _each(steps: Sequence[AnyStep], at: Path, find: Find) -> Iterator[tuple[Path, str]]:
    for index, step in enumerate(steps):
        here = (*at, index)
        if isinstance(step, Repeat):
            # Twice, so that a second round that meets what the first one left is seen.
            for _ in range(min(step.times, 2)):
                yield from _each(step.steps, (*here, "repeat", "steps"), find)
        elif isinstance(step, Together):
            for number, lane in enumerate(step.lanes):
                yield from _each(lane, (*here, "together", "lanes", number), find)
        elif said := find(step, here):
            yield here, said


def _without_any(
    steps: Sequence[AnyStep],
    bad_ones: Callable[[Sequence[AnyStep]], Iterator[tuple[Path, str]]],
) -> tuple[AnyStep, ...]:
    current = tuple(steps)
    while bad := {path for path, _ in bad_ones(current)}:
        current = _without(current, ("steps",), bad)
    return _without(current, ("steps",), set())


def _without(steps: Sequence[AnyStep], at: Path, bad: set[Path]) -> tuple[AnyStep, ...]:
    kept: list[AnyStep] = []
    for index, step in enumerate(steps):
        here = (*at, index)
        if here in bad:
            continue
        if isinstance(step, Repeat):
            inner = _without(step.steps, (*here, "repeat", "steps"), bad)
            if not inner:
                continue
            step = step.model_copy(update={"steps": inner})
        elif isinstance(step, Together):
            lanes = [
                _without(lane, (*here, "together", "lanes", number), bad)
                for number, lane in enumerate(step.lanes)
            ]
            full = tuple(lane for lane in lanes if lane)
            if not full:
                continue
            step = step.model_copy(update={"lanes": full})
        kept.append(step)
    return tuple(kept)


@dataclass
class _Told:
    """What a walk through the steps knows at one moment.

    Attributes:
        backings: first attach of every label.
        attached: labels.
        stalled: labels of disks that do not answer.
        jobs: label of the disk by the job's name.
        over: the step that ended the guest.
        saved: whether the guest is in a file.
        paused: whether it stands still.
        off: the step that turned the driver off.
    """

    backings: dict[str, Attach] = field(default_factory=dict)
    attached: set[str] = field(default_factory=set)
    stalled: set[str] = field(default_factory=set)
    jobs: dict[str, str] = field(default_factory=dict)
    over: str = ""
    saved: bool = False
    paused: bool = False
    off: str = ""

    def problem(self, step: AnyStep) -> str:
        """Why a step cannot be done now; empty when it can. Notes what it changes."""
        if said := self._state(step) or self._disk(step) or self._stalled(step):
            return said
        self._note(step)
        return ""

    def _state(self, step: AnyStep) -> str:
        """What the guest's state has against a step."""
        if self.over and not isinstance(step, _AFTER_THE_END):
            return f"the guest is gone after {self.over}"
        if self.saved and not isinstance(step, _WHILE_SAVED):
            return "the guest is saved: restore it first"
        if isinstance(step, Restore) and not self.saved:
            return "the guest was not saved"
        if isinstance(step, Unpause) and not self.paused:
            return "the guest is not paused"
        awake = (*_GUEST_STEPS, Attach, Detach, Pause, Save, Migrate)
        if self.paused and isinstance(step, awake):
            return "the guest is paused: unpause it first"
        driven = (Attach, Detach, Io, StartIo, Flush, Partition, Format)
        if self.off and isinstance(step, driven):
            return f"the driver is off after {self.off}"
        return ""

    def _disk(self, step: AnyStep) -> str:
        """What is missing of the disk or the job that a step names."""
        if isinstance(step, Attach):
            if step.size is None and step.disk not in self.backings:
                return f"the disk {step.disk!r} is new, so it needs a size"
            if step.disk in self.attached and not step.may_fail:
                return f"the disk {step.disk!r} is attached already"
        elif isinstance(step, Check | Fault) and step.disk not in self.backings:
            return f"there is no disk {step.disk!r}"
        elif isinstance(step, Detach | Partition | Io | StartIo | Flush):
            if step.disk not in self.attached:
                return f"the disk {step.disk!r} is not attached"
        elif isinstance(step, WaitIo | StopIo) and step.job not in self.jobs:
            return f"no job {step.job!r} runs"
        if isinstance(step, StartIo) and step.name in self.jobs:
            return f"a job {step.name!r} runs already"
        if isinstance(step, Fault):
            in_xenstore = step.kind in ("backend_state", "remove_nodes")
            if in_xenstore and step.disk not in self.attached:
                return f"the disk {step.disk!r} is not attached"
            backing = self.backings[step.disk].backing
            if not in_xenstore and backing != "mapped":
                return f"the disk {step.disk!r} is {backing}: only a mapped one can fail"
        return ""

    def _stalled(self, step: AnyStep) -> str:
        """A step that would wait for a disk that does not answer."""
        waits: set[str] = set()
        if isinstance(step, Attach | Detach | Partition | Io | Flush | Check):
            waits = {step.disk}
        elif isinstance(step, StartIo):
            waits = {step.disk} if step.wait else set()
        elif isinstance(step, WaitIo | StopIo):
            waits = {self.jobs[step.job]}
        elif isinstance(step, Save | Migrate | Reboot | PowerOff | DisableDriver | RemoveDriver):
            waits = self.attached
        if found := sorted(waits & self.stalled):
            return f"the disk {found[0]!r} is stalled: let it go on first"
        return ""

    def _note(self, step: AnyStep) -> None:
        if isinstance(step, Attach):
            self.backings.setdefault(step.disk, step)
            self.attached.add(step.disk)
        elif isinstance(step, Detach):
            self.attached.discard(step.disk)
        elif isinstance(step, StartIo):
            self.jobs[step.name] = step.disk
        elif isinstance(step, StopIo):
            del self.jobs[step.job]
        elif isinstance(step, Fault):
            # A table that is loaded lets the disk go on as well.
            if step.kind == "stall":
                self.stalled.add(step.disk)
            elif step.kind not in ("backend_state", "remove_nodes"):
                self.stalled.discard(step.disk)
        elif isinstance(step, Reboot):
            self.jobs.clear()
        elif isinstance(step, PowerOff | Destroy):
            self.over = step.op
        elif isinstance(step, Pause | Unpause):
            self.paused = isinstance(step, Pause)
        elif isinstance(step, Save | Restore):
            self.saved = isinstance(step, Save)
        elif isinstance(step, DisableDriver | RemoveDriver):
            self.off = step.op
        elif isinstance(step, EnableDriver | InstallDriver):
            self.off = ""


Part = tuple[str, int, int]
"""A disk's label, the first sector, and the first one behind."""


@dataclass
class _Content:
    """What the steps so far have put on each disk.

    Attributes:
        contested: places of steps that lanes beside them write over.
        written: for each disk, what was written where, the newest last; an empty word is
            something that nobody knows.
        running: part of the disk by the job's name, while it runs.
        sizes: of the disks, in sectors.
        read_only: labels of disks that refuse writes rightly.
        faulty: labels of disks that refuse requests.
        cut_off: labels of disks whose backend or nodes are gone.
        volumes: labels of disks with a file system.
        lost: whether nobody knows anything any more.
    """

    contested: set[Path]
    written: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)
    running: dict[str, StartIo] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    read_only: set[str] = field(default_factory=set)
    faulty: set[str] = field(default_factory=set)
    cut_off: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    lost: bool = False

    def doubt(self, step: AnyStep, path: Path) -> str:
        """Why a failure of a step would prove nothing; empty when it would."""
        if self.lost:
            return ""
        said = self._doubt(step)
        if not said and path in self.contested:
            said = "another list at the same time uses the same sectors"
        if not said:
            self._note(step)
        return said

    def _doubt(self, step: AnyStep) -> str:
        jobs = list(self.running.values())
        if isinstance(step, Io | StartIo | Check) and any(
            _overlap(_part(step), _part(job)) for job in jobs
        ):
            return "a running job writes these sectors"
        if isinstance(step, Partition) and any(job.disk == step.disk for job in jobs):
            return "a running job writes this disk"
        verifies = isinstance(step, StartIo) or (
            isinstance(step, Io) and step.action in ("exercise", "verify")
        )
        if isinstance(step, Io | StartIo) and verifies and step.disk in self.faulty:
            return "the disk refuses requests: what it then holds proves nothing"
        if (
            isinstance(step, Fault)
            and step.kind in _FAILING
            and step.disk in {job.disk for job in jobs}
        ):
            return "a running job would find its own writes refused"
        if isinstance(step, Detach) and step.disk in self.cut_off and not step.force:
            return "its backend or its nodes are gone: it may not let go"
        if isinstance(step, Io | StartIo | Check | Flush) and (said := self._expects(step)):
            return said
        if isinstance(step, Io) and step.action == "verify" and step.expect != "errors":
            return self._holds(_part(step), _tag(step.gen, step.seed))
        if isinstance(step, Check):
            if step.gen is not None:
                return self._holds(_part(step), _tag(step.gen, step.seed))
            ended = any(tag.startswith("job") for *_, tag in self.written.get(step.disk, ()))
            return self._holds(_part(step), f"job {step.seed}") if ended else ""
        return ""

    def _expects(self, step: Io | StartIo | Check | Flush) -> str:
        """Why requests may come to something else than what the step expects."""
        refusal = self._refusal(step)
        wanted = step.expect if isinstance(step, Io | Flush) else "ok"
        if wanted == "ok" and refusal and not step.may_fail:
            return refusal
        if wanted == "errors" and not refusal:
            return "nothing makes these requests fail"
        return ""

    def _refusal(self, step: Io | StartIo | Check | Flush) -> str:
        """Why requests are rightly refused; empty when they are not."""
        if not isinstance(step, Flush) and step.first + step.count > self.sizes.get(step.disk, 0):
            return "it goes beyond the end of the disk"
        if isinstance(step, Check):
            return ""
        if step.disk in self.faulty | self.cut_off:
            return "the disk refuses requests: what it then holds proves nothing"
        writes = isinstance(step, StartIo) or (
            isinstance(step, Io)
            and (step.action in ("write", "exercise") or step.direction == "write")
        )
        if writes and step.disk in self.read_only:
            return "the disk is attached read-only"
        return ""

    def _holds(self, part: Part, wanted: str) -> str:
        """Why a part of a disk need not hold what is looked for."""
        left = [part[1:]]
        for first, end, tag in reversed(self.written.get(part[0], [])):
            met = [one for one in left if first < one[1] and one[0] < end]
            if met and tag != wanted:
                return "something else was written there"
            left = [
                piece
                for low, high in left
                for piece in ((low, min(high, first)), (max(low, end), high))
                if piece[0] < piece[1]
            ]
        return "nobody wrote what is looked for" if left else ""

    def _put(self, part: Part, tag: str) -> None:
        self.written.setdefault(part[0], []).append((*part[1:], tag))

    def _note(self, step: AnyStep) -> None:
        if isinstance(step, Io):
            sure = step.expect == "ok" and not step.may_fail
            if step.action == "exercise":
                self._put(_part(step), _tag(step.gen + step.gens - 1, step.seed) if sure else "")
            elif step.action == "write":
                self._put(_part(step), _tag(step.gen, step.seed) if sure else "")
            elif step.action == "bench" and step.direction == "write":
                self._put(_part(step), "")
        elif isinstance(step, StartIo):
            self.running[step.name] = step
            self._put(_part(step), "")
        elif isinstance(step, StopIo):
            if (job := self.running.pop(step.job, None)) is not None:
                sure = step.expect == "ok" and not step.may_fail
                self._put(_part(job), f"job {job.seed}" if sure else "")
        elif isinstance(step, Attach):
            if step.size is not None:
                self.sizes.setdefault(step.disk, step.size)
            self.cut_off.discard(step.disk)
            self.read_only.discard(step.disk)
            if step.mode == "r":
                self.read_only.add(step.disk)
        elif isinstance(step, Detach):
            gone = step.disk
            self._end(lambda job: job.disk == gone)
        elif isinstance(step, Reboot | PowerOff | Destroy | DisableDriver | RemoveDriver):
            self._end(lambda _: True)
        elif isinstance(step, Fault):
            if step.kind in _FAILING:
                self.faulty.add(step.disk)
            elif step.kind == "heal":
                self.faulty.discard(step.disk)
            elif step.kind == "grow":
                self.sizes[step.disk] = self.sizes.get(step.disk, 0) + step.count
            elif step.kind in ("backend_state", "remove_nodes"):
                self.cut_off.add(step.disk)
        elif isinstance(step, Partition):
            self.volumes.add(step.disk)
        elif isinstance(step, Opaque):
            self.lost = True
        if isinstance(step, Partition | Format | InGuest | PutFile):
            for label in self.volumes:
                self._put((label, 0, 1 << 62), "")

    def _end(self, which: Callable[[StartIo], bool]) -> None:
        """Jobs end without a word: their disk went."""
        self.running = {name: job for name, job in self.running.items() if not which(job)}


def _contested(steps: Sequence[AnyStep]) -> set[Path]:
    """Places of steps that use sectors which another lane of their group writes."""
    found: set[Path] = set()
    for path, group in walk(steps):
        if not isinstance(group, Together):
            continue
        lanes = [
            [
                (inner, step)
                for inner, step in walk(lane, (*path, "together", "lanes", number))
                if isinstance(step, Io | StartIo | Check)
            ]
            for number, lane in enumerate(group.lanes)
        ]
        for number, lane_steps in enumerate(lanes):
            others = [one for other in lanes[:number] for _, one in other]
            found |= {
                place
                for place, step in lane_steps
                if any(_overlap(_part(step), _part(other)) for other in others)
            }
    return found


def _part(step: Io | StartIo | Check) -> Part:
    return step.disk, step.first, step.first + step.count


def _overlap(one: Part, other: Part) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def _tag(gen: int, seed: int) -> str:
    return f"{gen} {seed}"
