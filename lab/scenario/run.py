"""Running a scenario in a place whose guest has the driver installed."""

from __future__ import annotations

import contextvars
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from lab.core.deadline import NotYet, wait_for
from lab.core.errors import (
    DeadlineExpired,
    DriverFailure,
    GuestCrashed,
    LabBroken,
    PvlabError,
    UsageError,
)
from lab.core.journal import noun
from lab.crash import reader
from lab.crash.facts import CrashFact, Source
from lab.guest.crash import CrashKind
from lab.guest.diskio import REQUESTS, DiskIo, IoResult, Job
from lab.guest.driverstore import InstallResult
from lab.scenario.model import (
    AnyStep,
    Attach,
    Check,
    Destroy,
    Detach,
    DisableDriver,
    EnableDriver,
    Expect,
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
    Scenario,
    StartIo,
    StopIo,
    Together,
    Unpause,
    Wait,
    WaitIo,
    where,
)
from lab.scenario.outcome import End, Moment, Outcome, WrongData
from lab.scenario.sense import problems
from lab.scenario.text import words
from lab.suite import lifecycle
from lab.suite.aftermath import examine, find_crash
from lab.suite.allowance import Allowances, Granted
from lab.suite.at_once import Move, at_once
from lab.suite.backing import Backing, Backings, Mapped
from lab.suite.blame import decide
from lab.suite.devices import NO_DISK, BlockDevices
from lab.suite.jitter import Jitter, rest
from lab.xen import vbd
from lab.xen.blockspec import BlockSpec

if TYPE_CHECKING:
    from lab.drivers.package import DriverPackage
    from lab.place.place import Place

T = TypeVar("T")

ENDLESS = 1_000_000
"""Generations of a background job that runs until it is stopped."""

CONTENT_SEED = b"pvlab"


@dataclass
class _Disk:
    """A disk that is attached.

    Attributes:
        backing: the device in dom0.
        spec: how it is attached.
        vbd: both ends when they were connected.
        number: the guest's; None when it has to be looked for.
        before: what it was before it had to be.
    """

    backing: Backing
    spec: BlockSpec
    vbd: vbd.Vbd
    number: int | None = None
    before: int | None = None


@dataclass
class _Running:
    """A background job.

    Attributes:
        job: it.
        disk: label of its disk.
    """

    job: Job
    disk: str


@noun
class Runner:
    """Executes steps in one place.

    Args:
        place: with a live guest.
        installed: what the driver's installation said; None when steps that disable or remove
            the driver are not among them.
        package: the driver's package, for ``install_driver``.
        seed: of the jitter.
        lab: deadlines; the place's own when None.
    """

    def __init__(
        self,
        place: Place,
        *,
        installed: InstallResult | None = None,
        package: DriverPackage | None = None,
        seed: int = 1,
        lab: Allowances | None = None,
    ) -> None:
        self._place = place
        self._installed = installed
        self._package = package
        self._lab: Allowances = lab or Granted(place.deadlines)
        self._jitter = Jitter(seed)
        self._io = DiskIo(place.guest.channel)
        self._backings = Backings(place.dom0, place.vg)
        self._known: dict[str, Backing] = {}
        self._devices: dict[str, str] = {}
        self._disks: dict[str, _Disk] = {}
        self._jobs: dict[str, _Running] = {}
        self._generations: dict[str, int] = {}
        self._foreign: frozenset[int] | None = None
        self._paused = False
        self._ended = False
        self._started = time.monotonic()
        self._moments: list[Moment] = []
        self._failed_at = ""
        self._guest_lock = threading.RLock()

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The steps so far, in the order in which they ended."""
        return tuple(self._moments)

    @property
    def failed_at(self) -> str:
        """The step that failed first, in words; empty while none has."""
        return self._failed_at

    def run(self, scenario: Scenario) -> None:
        """Run all steps, and see that the guest has lived through them.

        Raises:
            GuestCrashed, WrongData, DriverFailure: what the driver did.
            UsageError: the scenario makes no sense.
            PvlabError: the lab failed, or nobody can say who did.
        """
        self._started = time.monotonic()
        guest, place = self._place.guest, self._place
        with guest.crash.guard("the start of the scenario", self._lab.deadline("command")):
            self._foreign = frozenset(
                disk.number for disk in guest.disks.list(self._lab.deadline("command"), rescan=True)
            )
        self._all(scenario.steps, ("steps",), lane=False)
        if self._ended:
            return
        if self._paused:
            place.toolstack.unpause(place.domain, self._lab.deadline("command"))
        command = self._lab.deadline("command")
        # A driver that lets go of a device does so after dom0 has: it is given the time that a
        # list of the disks takes.
        with guest.crash.guard("a look at the disks after the last step", command):
            guest.disks.list(command)
        if (found := guest.crash.check(self._lab.deadline("crash"))) is not None:
            raise GuestCrashed(
                f"the guest crashed after the last step: {found.summary}", evidence=found.evidence
            )

    # -- groups -------------------------------------------------------------------------

    def _all(self, steps: Sequence[AnyStep], at: Path, *, lane: bool) -> None:
        for index, step in enumerate(steps):
            self._one(step, (*at, index), lane=lane)

    def _one(self, step: AnyStep, path: Path, *, lane: bool) -> None:
        started = time.monotonic() - self._started
        error = ""
        try:
            self._step(step, path, lane=lane)
        except BaseException as failure:
            error = str(failure) or type(failure).__name__
            if not (step.may_fail and _forgivable(failure)):
                if not isinstance(step, Together | Repeat):
                    self._failed_at = self._failed_at or f"{where(path)}, {words(step)}"
                raise
        finally:
            ended = time.monotonic() - self._started
            self._moments.append(Moment(path, words(step), started, ended, error))

    def _step(self, step: AnyStep, path: Path, *, lane: bool) -> None:
        if isinstance(step, Repeat):
            for _ in range(step.times):
                self._all(step.steps, (*path, "repeat", "steps"), lane=lane)
        elif isinstance(step, Together):
            self._together(step, path, lane=lane)
        else:
            with self._guarded(words(step), lane=lane):
                self._do(step, lane=lane)

    def _together(self, step: Together, path: Path, *, lane: bool) -> None:
        if (moves := self._moves(step)) is not None:
            labels, made = moves
            with self._guarded("steps at the same time", lane=lane):
                at_once(self._place, made, self._lab)
            self._settle(labels, made)
            return
        # Each lane waits for its own steps only; who talks to the guest waits for the others.
        with ThreadPoolExecutor(max_workers=len(step.lanes)) as pool:
            running = [
                pool.submit(
                    contextvars.copy_context().run,
                    self._lane,
                    lane_steps,
                    (*path, "together", "lanes", number),
                )
                for number, lane_steps in enumerate(step.lanes)
            ]
        errors = [error for one in running if (error := one.exception()) is not None]
        if errors:
            with self._guarded("steps at the same time", lane=lane):
                raise _first(errors)

    def _lane(self, steps: Sequence[AnyStep], at: Path) -> None:
        self._all(steps, at, lane=True)

    @contextmanager
    def _guarded(self, operation: str, *, lane: bool) -> Iterator[None]:
        if lane:
            yield
            return
        with self._place.guest.crash.guard(operation, self._lab.deadline("command")):
            yield

    def _moves(self, step: Together) -> tuple[list[Attach | Detach], list[Move]] | None:
        """The lanes as moves of one script, if all are a wait and an attach or a detach."""
        labels: list[Attach | Detach] = []
        moves: list[Move] = []
        for lane in step.lanes:
            if not lane or not isinstance(lane[-1], Attach | Detach) or lane[-1].may_fail:
                return None
            if not all(isinstance(one, Wait | JitterStep) for one in lane[:-1]):
                return None
        for lane in step.lanes:
            delay = sum(self._seconds(one) for one in lane[:-1])
            last = lane[-1]
            assert isinstance(last, Attach | Detach)  # noqa: S101 - looked at above
            labels.append(last)
            if isinstance(last, Attach):
                moves.append(Move("attach", self._spec(last), delay))
            else:
                moves.append(Move("detach", self._disk(last.disk).spec, delay, last.force))
        return labels, moves

    def _settle(self, labels: Sequence[Attach | Detach], moves: Sequence[Move]) -> None:
        """Note what moves at the same time have changed."""
        for label, move in zip(labels, moves, strict=True):
            if isinstance(label, Detach):
                self._forget(label.disk)
                continue
            ends = vbd.read(
                self._place.xenstore,
                self._place.domain.domid,
                move.spec.devid,
                self._lab.deadline("command"),
            )
            if ends is None:
                raise DriverFailure(f"{move.spec.vdev} was connected and is gone")
            self._disks[label.disk] = _Disk(self._known[label.disk], move.spec, ends)
        for label in labels:
            if isinstance(label, Attach) and label.find:
                self._number(label.disk)

    # -- steps --------------------------------------------------------------------------

    def _do(self, step: AnyStep, *, lane: bool) -> None:
        actions: dict[type, Callable[..., None]] = {
            Partition: self._partition,
            Format: self._format,
            PutFile: self._put_file,
            InGuest: self._in_guest,
            Io: self._raw_io,
            StartIo: self._start_io,
            WaitIo: self._wait_io,
            StopIo: self._stop_io,
            Flush: self._flush,
            Check: self._check,
            Fault: self._fault,
            Wait: self._wait,
            JitterStep: self._wait,
            Pause: self._pause,
            Unpause: self._unpause,
            Save: self._save,
            Restore: self._lifecycle,
            Migrate: self._lifecycle,
            Reboot: self._lifecycle,
            PowerOff: self._power_off,
            Destroy: self._destroy,
            DisableDriver: self._driver,
            EnableDriver: self._driver,
            RemoveDriver: self._driver,
            InstallDriver: self._driver,
        }
        if isinstance(step, Attach):
            self._attach(step, lane=lane)
        elif isinstance(step, Detach):
            self._detach(step)
        elif not isinstance(step, Opaque):
            actions[type(step)](step)

    def _spec(self, step: Attach) -> BlockSpec:
        backing = self._known.get(step.disk)
        if backing is None:
            if step.size is None:
                raise UsageError(f"the disk {step.disk!r} is new, so it needs a size")
            backing = self._known[step.disk] = self._make(step, step.size)
        device = step.device or self._devices.get(step.disk, step.disk)
        self._devices[step.disk] = device
        return BlockSpec.parse(backing.spec, device, step.mode)

    def _make(self, step: Attach, size: int) -> Backing:
        deadline = self._lab.deadline("command")
        if step.backing == "volume":
            return self._backings.volume(size, deadline)
        if step.backing == "file":
            return self._backings.file(size, deadline)
        if step.backing == "sparse":
            return self._backings.sparse(size, deadline, sector_bytes=step.sector_bytes)
        if step.backing == "cached":
            return self._backings.cached(size, deadline).disk
        return self._backings.exact(size, deadline, room=step.room)

    def _attach(self, step: Attach, *, lane: bool) -> None:
        spec = self._spec(step)
        place = self._place
        if not lane and step.find and not self._paused:
            ends, disk = BlockDevices(place, self._lab).attach(spec)
            self._disks[step.disk] = _Disk(self._known[step.disk], spec, ends, disk.number)
            return
        deadline = self._lab.deadline("attach")
        ends = vbd.attach(
            place.toolstack,
            place.xenstore,
            place.domain,
            spec,
            deadline,
            while_waiting=lambda: place.guest.crash.raise_if_seen(deadline),
        )
        self._disks[step.disk] = _Disk(self._known[step.disk], spec, ends)

    def _detach(self, step: Detach) -> None:
        place, deadline = self._place, self._lab.deadline("attach")
        vbd.detach(
            place.toolstack,
            place.xenstore,
            place.domain,
            self._disk(step.disk).vbd.devid,
            deadline,
            force=step.force,
            while_waiting=lambda: place.guest.crash.raise_if_seen(deadline),
        )
        self._forget(step.disk)

    def _forget(self, label: str) -> None:
        del self._disks[label]

    def _partition(self, step: Partition) -> None:
        number = self._number(step.disk)
        with self._guest_lock, _answered():
            self._place.guest.disks.partition(
                number, step.letter, self._lab.deadline("command"), size_mib=step.size_mib
            )

    def _format(self, step: Format) -> None:
        with self._guest_lock, _answered():
            self._place.guest.disks.format(
                step.letter, self._lab.deadline("command"), file_system=step.file_system
            )

    def _put_file(self, step: PutFile) -> None:
        with self._guest_lock:
            self._place.guest.files.put_bytes(
                content(step.size_bytes), step.path, self._lab.deadline("boot")
            )

    def _in_guest(self, step: InGuest) -> None:
        with self._guest_lock, _answered():
            result = self._place.guest.channel.run(step.command, self._lab.deadline("boot"))
        if not result.ok:
            said = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
            raise DriverFailure(f"`{step.command}` exited {result.exit_code}: {' '.join(said)}")

    def _raw_io(self, step: Io) -> None:
        number, how = self._number(step.disk), _options(step)
        verb = {
            "write": self._io.write,
            "verify": self._io.verify,
            "exercise": self._io.exercise,
            "bench": self._io.bench,
        }[step.action]
        if step.action == "bench":
            how |= {"ops": step.ops, "op": step.direction}
        elif step.action == "exercise":
            how["gens"] = step.gens
        with self._guest_lock, _answered():
            result = verb(number, step.first, step.count, self._lab.deadline("boot"), **how)
        _judge(result, step.expect)

    def _start_io(self, step: StartIo) -> None:
        number = self._number(step.disk)
        how = _options(step) | {"gens": step.gens if step.gens > 1 else ENDLESS}
        with self._guest_lock:
            job = self._io.start(
                number, step.first, step.count, self._lab.deadline("command"), **how
            )
            self._jobs[step.name] = _Running(job, step.disk)
            if step.wait:
                self._busy(job, step.wait)

    def _wait_io(self, step: WaitIo) -> None:
        with self._guest_lock:
            self._busy(self._job(step.job).job, step.more)

    def _busy(self, job: Job, more: int) -> None:
        with _answered():
            job.wait_busy(self._lab.deadline("boot"), more=more)

    def _stop_io(self, step: StopIo) -> None:
        running = self._job(step.job)
        deadline = self._lab.deadline("boot")
        with self._guest_lock, _answered():
            ended = running.job.end(deadline) if step.tell else running.job.result(deadline)
        del self._jobs[step.job]
        if ended.generations:
            self._generations[running.disk] = max(ended.generations)
        _judge(ended, step.expect)

    def _flush(self, step: Flush) -> None:
        number = self._number(step.disk)
        with self._guest_lock, _answered():
            result = self._io.flush(number, self._lab.deadline("command"))
        _judge(result, step.expect)

    def _check(self, step: Check) -> None:
        gen = step.gen or self._generations.get(step.disk)
        if gen is None:
            return
        backing = self._known[step.disk]
        wrong = backing.wrong(
            step.first, step.count, self._lab.deadline("boot"), gen=gen, seed=step.seed
        )
        if wrong:
            raise WrongData(f"the backing device of {step.disk} holds: {'; '.join(wrong)}")

    def _fault(self, step: Fault) -> None:
        deadline, xenstore = self._lab.deadline("command"), self._place.xenstore
        if step.kind == "backend_state":
            backend = self._disk(step.disk).vbd.backend.path
            xenstore.write(f"{backend}/state", str(step.state), deadline)
            return
        if step.kind == "remove_nodes":
            xenstore.rm(self._disk(step.disk).vbd.frontend.path, deadline)
            return
        backing = self._known.get(step.disk)
        if not isinstance(backing, Mapped):
            raise UsageError(f"the disk {step.disk!r} is not mapped: it cannot fail")
        if step.kind == "error":
            backing.fail(step.first, step.count, deadline)
        elif step.kind == "flakey":
            backing.flake(step.up_s, step.down_s, deadline)
        elif step.kind == "delay":
            backing.delay(step.ms, deadline)
        elif step.kind == "refuse_writes":
            backing.refuse_writes(deadline)
        elif step.kind == "stall":
            backing.suspend(deadline)
        elif step.kind == "go_on":
            backing.resume(deadline)
        elif step.kind == "grow":
            backing.grow(backing.sectors + step.count, deadline)
        else:
            backing.heal(deadline)

    def _wait(self, step: Wait | JitterStep) -> None:
        rest(words(step), self._seconds(step))

    def _seconds(self, step: AnyStep) -> float:
        if isinstance(step, JitterStep):
            return self._jitter.delay(step.name, step.up_to)
        return step.seconds if isinstance(step, Wait) else 0.0

    def _pause(self, step: Pause) -> None:
        self._place.toolstack.pause(self._place.domain, self._lab.deadline("command"))
        self._paused = True

    def _unpause(self, step: Unpause) -> None:
        self._place.toolstack.unpause(self._place.domain, self._lab.deadline("command"))
        self._paused = False

    def _save(self, step: Save) -> None:
        with self._guest_lock:
            lifecycle.save(self._place, self._lab.deadline("boot"))

    def _lifecycle(self, step: Restore | Migrate | Reboot) -> None:
        verb = {
            "restore": lifecycle.restore,
            "migrate": lifecycle.migrate,
            "reboot": lifecycle.reboot,
        }[step.op]
        with self._guest_lock:
            verb(self._place, self._lab.deadline("boot"))
        if isinstance(step, Reboot):
            self._jobs.clear()
        self._look_again()

    def _look_again(self) -> None:
        """What was known of the guest's disks holds no longer."""
        place = self._place
        # The disks that were there before the first step may have other numbers now.
        self._foreign = None
        for disk in self._disks.values():
            disk.before = disk.before if disk.number is None else disk.number
            disk.number = None
            ends = vbd.read(
                place.xenstore, place.domain.domid, disk.spec.devid, self._lab.deadline("command")
            )
            disk.vbd = ends or disk.vbd

    def _power_off(self, step: PowerOff) -> None:
        lifecycle.power_off(self._place, self._lab.deadline("boot"))
        self._place.guest.crash.raise_if_seen(self._lab.deadline("command"))
        self._place.guest.crash.retire()
        self._ended = True

    def _destroy(self, step: Destroy) -> None:
        self._place.guest.crash.retire()
        self._place.toolstack.destroy(self._place.domain, self._lab.deadline("command"))
        self._ended = True

    def _driver(self, step: DisableDriver | EnableDriver | RemoveDriver | InstallDriver) -> None:
        drivers = self._place.guest.drivers
        with self._guest_lock:
            if isinstance(step, InstallDriver):
                if self._package is None:
                    raise UsageError("no driver package to install again")
                drivers.rescan(self._lab.deadline("command"))
                done = drivers.install(self._package, self._lab.deadline("boot"))
            else:
                if self._installed is None or not self._installed.devices:
                    raise UsageError("no driver was installed that could be turned off")
                device = self._installed.devices[-1]
                verb = {
                    "disable_driver": drivers.disable,
                    "enable_driver": drivers.enable,
                    "remove_driver": drivers.remove,
                }[step.op]
                done = verb(device, self._lab.deadline("attach"))
        if done.reboot_needed:
            raise DriverFailure(f"{step.op}: the driver asks for a reboot")
        self._look_again()

    # -- what the steps name --------------------------------------------------------------

    def _disk(self, label: str) -> _Disk:
        if label not in self._disks:
            raise UsageError(f"the disk {label!r} is not attached")
        return self._disks[label]

    def _job(self, name: str) -> _Running:
        if name not in self._jobs:
            raise UsageError(f"no job {name!r} runs")
        return self._jobs[name]

    def _number(self, label: str) -> int:
        """The guest's number of a disk, looked for by its exact size if need be."""
        disk = self._disk(label)
        if disk.number is None:
            with self._guest_lock:
                try:
                    disk.number = wait_for(
                        f"a disk of {disk.backing.sectors} sectors in the guest",
                        lambda: self._look(disk),
                        self._lab.deadline("attach"),
                        interval=0.3,
                    )
                except DeadlineExpired as error:
                    raise DriverFailure(
                        f"{disk.spec.vdev}: both ends are connected, but the guest does not show "
                        f"it; last seen: {error.last_seen}",
                        stuck=NO_DISK,
                    ) from error
        return disk.number

    def _look(self, disk: _Disk) -> int:
        listed = self._place.guest.disks.list(self._lab.deadline("command"), rescan=True)
        taken = {other.number for other in self._disks.values()} | (self._foreign or frozenset())
        fresh = [one.number for one in listed if one.number not in taken]
        unknown = [one for one in self._disks.values() if one.number is None and one is not disk]
        if self._foreign is not None and len(fresh) == 1 and not unknown:
            return fresh[0]
        sizes: dict[int, int] = {}
        for number in fresh:
            try:
                sizes[number] = self._io.size(number, self._lab.deadline("command")).sectors
            except DriverFailure:
                # It went between the list and the question.
                continue
        fitting = [number for number, size in sizes.items() if size == disk.backing.sectors]
        if disk.before in fitting:
            return disk.before
        if len(fitting) > 1:
            raise UsageError(
                f"disks {fitting} of the guest have {disk.backing.sectors} sectors each: which is "
                f"{disk.spec.vdev}?",
                hint="give disks that are attached at the same time different sizes",
            )
        if not fitting:
            raise NotYet(f"disks and their sectors: {sizes}")
        return fitting[0]


def run(
    scenario: Scenario,
    place: Place,
    *,
    installed: InstallResult | None = None,
    package: DriverPackage | None = None,
    lab: Allowances | None = None,
) -> Outcome:
    """Run a scenario and say what came of it.

    Args:
        scenario: what to do.
        place: with a live guest that has the driver installed; afterwards it is used up.
        installed: what the installation said.
        package: the driver's package.
        lab: deadlines; the place's own when None.

    Raises:
        UsageError: the scenario makes no sense.
    """
    for path, said in problems(scenario.steps):
        raise UsageError(f"{where(path)}: {said}")
    lab = lab or Granted(place.deadlines)
    started = time.monotonic()
    runner: Runner | None = None
    error: BaseException | None = None
    try:
        runner = Runner(place, installed=installed, package=package, seed=scenario.seed, lab=lab)
        runner.run(scenario)
    except UsageError:
        raise
    except Exception as failure:
        error = failure
    moments = runner.moments if runner else ()
    if error is None:
        return Outcome(End.PASSED, moments=moments, seconds=time.monotonic() - started)
    return outcome_of(
        error,
        place,
        lab,
        at=runner.failed_at if runner else "",
        moments=moments,
        seconds=time.monotonic() - started,
    )


def outcome_of(
    error: BaseException,
    place: Place,
    lab: Allowances,
    *,
    at: str = "",
    moments: tuple[Moment, ...] = (),
    seconds: float = 0.0,
) -> Outcome:
    """What a failure in a place means: who is to blame, and what is known of a crash.

    Args:
        error: what was raised.
        place: where it was.
        lab: deadlines.
        at: the step, in words.
        moments: the steps.
        seconds: how long it took.
    """
    health = examine(place, lab.deadline("command"))
    crash = error if isinstance(error, GuestCrashed) else None
    if health.ok:
        try:
            crash = find_crash(place, lab.deadline("crash"), crash)
        except LabBroken as broken:
            error = broken
    verdict = decide(error, health=health, crash=crash, driver_test=True)
    facts: tuple[CrashFact, ...] = ()
    end = End.FAILED
    if not health.ok or isinstance(error, LabBroken):
        end = End.LAB
    elif crash is not None:
        hung = CrashKind.SILENT.value in crash.message
        end = End.HANG if hung else End.CRASH
        facts = crash_facts(crash, place, lab, hung=hung)
    elif isinstance(error, DriverFailure) and error.stuck:
        end = End.HANG
        facts = (_told("hang", error.message, error.stuck),)
    elif isinstance(error, WrongData):
        end = End.WRONG_DATA
    elif not isinstance(error, PvlabError):
        end = End.LAB
    return Outcome(end, verdict.blame, verdict.reason, at, facts, moments, seconds)


def crash_facts(
    crash: GuestCrashed, place: Place, lab: Allowances, *, hung: bool
) -> tuple[CrashFact, ...]:
    """What the guest's serial log says of its crash; else what the crash monitor does."""
    return (
        _facts_in(place, lambda: place.guest_serial(lab.deadline("command")))
        or _facts_in(place, lambda: "\n".join(crash.evidence))
        or (_told("hang" if hung else "unknown", crash.message),)
    )


def _facts_in(place: Place, text: Callable[[], str]) -> tuple[CrashFact, ...]:
    """What a log says of a crash; nothing when it cannot be had."""
    file = place.scratch / "guest-serial.log"
    try:
        file.write_text(text(), encoding="utf-8")
        return tuple(reader.read(file))
    except (PvlabError, OSError):
        return ()


def _told(kind: Literal["hang", "unknown"], message: str, stuck: str | None = None) -> CrashFact:
    source = Source("crash monitor", "the guest", "")
    known = ("message", "stuck") if stuck else ("message",)
    return CrashFact(kind, message=message, stuck=stuck, sources=dict.fromkeys(known, source))


def content(size: int) -> bytes:
    """What ``put_file`` writes: different in every block of 64 bytes, the same each time."""
    return hashlib.shake_256(CONTENT_SEED).digest(size)


def _options(step: Io | StartIo) -> dict[str, object]:
    how: dict[str, object] = {"gen": step.gen, "seed": step.seed}
    if step.block is not None:
        how["block"] = step.block
    if step.threads > 1:
        how["threads"] = step.threads
    if step.order != "seq":
        how["order"] = step.order
    if step.shift:
        how["shift"] = True
    if step.flush:
        how["flush"] = True
    return how


def _judge(result: IoResult, expect: Expect) -> None:
    """See that requests came to what was expected.

    Raises:
        WrongData: sectors held something else.
        DriverFailure: requests were refused, or were not although they had to be.
    """
    if result.mismatches:
        raise WrongData(result.words)
    if expect == "ok":
        result.require("requests were refused")
    elif expect == "errors" and not result.errors:
        raise DriverFailure(f"all {result.requests} requests succeeded; some had to fail")


@contextmanager
def _answered() -> Iterator[None]:
    """Name requests that are never answered as what they are."""
    try:
        yield
    except DeadlineExpired as late:
        raise DriverFailure(f"requests hang: {late.message}", stuck=REQUESTS) from late


def _forgivable(failure: BaseException) -> bool:
    """Whether a step that may fail may fail so."""
    grave = (GuestCrashed, WrongData, LabBroken, UsageError)
    return isinstance(failure, PvlabError) and not isinstance(failure, grave)


def _first(errors: Sequence[BaseException]) -> BaseException:
    """The error that says most: a crash, wrong data, else the first."""
    for kind in (GuestCrashed, WrongData):
        for error in errors:
            if isinstance(error, kind):
                return error
    return errors[0]
