"""What a scenario consists of: typed steps, in an order, with groups.

Sectors have 512 bytes everywhere, as in ``lab.guest.diskio``, whose options the I/O steps have.
A disk is called by a label, which is its virtual device's name unless the attach says otherwise.
The label stays with the backing device: a second attach of the same label finds its old data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from lab.core.errors import UsageError
from lab.guest.names import checked_path
from lab.suite.jitter import SHORTEST
from lab.xen.blockspec import devid

VERSION: Literal[1] = 1

MAX_STEPS = 20_000
"""Most steps that a scenario runs, repetitions counted."""

MAX_NESTING = 6
"""Groups within groups."""

MIB = 2048
"""Sectors in a MiB."""

_UNITS = {"sectors": 1, "sector": 1, "KiB": 2, "MiB": MIB, "GiB": MIB << 10, "TiB": MIB << 20}
_SIZE = re.compile(r"(\d{1,15}) ?([A-Za-z]+)")


def _sectors(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{value!r} is no size: write 64 MiB, or a number of 512-byte sectors")
    return int(found[1]) * _UNITS[found[2]]


def _size_text(sectors: int) -> int | str:
    return f"{sectors // MIB} MiB" if sectors and sectors % MIB == 0 else sectors


def _device(value: str) -> str:
    name = value.removeprefix("/dev/")
    if not name:
        return name
    try:
        devid(name)
    except UsageError as error:
        raise ValueError(error.message) from None
    if name.isdecimal():
        raise ValueError(f"{value!r}: write the device's name, such as hdc")
    return name


Sectors = Annotated[
    int,
    BeforeValidator(_sectors),
    Field(ge=0, le=1 << 42, strict=True),
    PlainSerializer(_size_text),
]
"""A number of sectors; ``64 MiB`` in text."""

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")]
Job = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,39})?$")]
Device = Annotated[str, BeforeValidator(lambda v: _device(v) if isinstance(v, str) else v)]
Letter = Annotated[str, Field(pattern=r"^[D-Z]$")]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=2000)]
Expect = Literal["ok", "errors", "any"]
"""What requests have to come to: all answered with success, some refused, or whatever."""


class Step(BaseModel):
    """What every step has.

    Attributes:
        may_fail: whether the scenario goes on when the step fails. A crash, wrong data and a
            failure of the lab's own always end it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    main: ClassVar[str] = ""
    """The field that stands for the step in the short form: ``detach: hdc``."""

    may_fail: bool = False


class Attach(Step):
    """Attach a disk and wait until both ends are connected and the guest lists it.

    Attributes:
        disk: its label; a label that was attached before stands for the same backing device.
        device: virtual device; when empty the one that the label had before, else the label.
        size: of a backing device that is new; None when the label is known.
        mode: as ``block-attach`` takes it.
        backing: what it is in dom0; see ``lab.suite.backing.Backings``.
        sector_bytes: logical sector size; other than 512 for ``sparse`` only.
        room: what a ``mapped`` one can grow by.
        find: whether to wait until the guest lists the disk.
    """

    main = "disk"
    op: Literal["attach"] = "attach"
    disk: Label
    device: Device = ""
    size: Sectors | None = None
    mode: Literal["r", "w", "w!"] = "w"
    backing: Literal["mapped", "volume", "file", "sparse", "cached"] = "mapped"
    sector_bytes: Literal[512, 4096] = 512
    room: Sectors = 0
    find: bool = True

    @property
    def vdev(self) -> str:
        """The virtual device of a label that is new: ``hdc``."""
        return self.device or self.disk

    @model_validator(mode="after")
    def _makes_sense(self) -> Attach:
        if self.size is not None and not self.device:
            try:
                _device(self.disk)
            except ValueError:
                raise ValueError(
                    f"{self.disk!r} is no virtual device: name one with `device:`"
                ) from None
        if self.size == 0:
            raise ValueError("a disk needs a size")
        if self.sector_bytes != 512 and self.backing != "sparse":
            raise ValueError("only a sparse backing device has other sectors than 512 bytes")
        if self.room and self.backing != "mapped":
            raise ValueError("only a mapped backing device has room to grow")
        return self


class Detach(Step):
    """Detach a disk and wait until dom0's end is gone.

    Attributes:
        disk: its label.
        force: do not wait for the guest to let go.
    """

    main = "disk"
    op: Literal["detach"] = "detach"
    disk: Label
    force: bool = False


class Partition(Step):
    """Make one partition and give it a letter.

    Attributes:
        disk: its label.
        letter: drive letter.
        size_mib: in MiB; the whole disk when None.
    """

    main = "disk"
    op: Literal["partition"] = "partition"
    disk: Label
    letter: Letter = "X"
    size_mib: Annotated[int, Field(ge=1, le=1 << 20)] | None = None


class Format(Step):
    """Quick-format a volume.

    Attributes:
        letter: drive letter.
        file_system: which.
    """

    main = "letter"
    op: Literal["format"] = "format"
    letter: Letter = "X"
    file_system: Literal["ntfs", "fat32"] = "ntfs"


class PutFile(Step):
    """Write a file into the guest through WinRM, with the lab's own content.

    Attributes:
        path: absolute, in the guest.
        size_bytes: its length.
    """

    main = "path"
    op: Literal["put_file"] = "put_file"
    path: str
    size_bytes: Annotated[int, Field(ge=0, le=16 << 20)] = 192 * 1024

    @field_validator("path")
    @classmethod
    def _checked(cls, path: str) -> str:
        try:
            return checked_path(path)
        except UsageError as error:
            raise ValueError(error.message) from None


class InGuest(Step):
    """Run a command line in the guest; it fails when the exit code is not 0.

    Attributes:
        command: as typed at a prompt.
    """

    main = "command"
    op: Literal["in_guest"] = "in_guest"
    command: Line


class _Requests(Step):
    """The options of ``diskio`` that all of its verbs have."""

    disk: Label
    first: Sectors = 0
    count: Sectors = 1024
    gen: Annotated[int, Field(ge=1, le=1 << 31)] = 1
    gens: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    seed: Annotated[int, Field(ge=0, le=1 << 31)] = 1
    block: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    order: Literal["seq", "random"] = "seq"
    shift: bool = False
    flush: bool = False


class Io(_Requests):
    """Raw I/O in the guest, to its end; see ``lab.guest.diskio``.

    Attributes:
        disk: its label.
        action: write the pattern, read and compare it, both for each of ``gens`` generations,
            or time requests.
        first: first sector.
        count: sectors.
        gen: generation of the pattern, the first one of ``exercise``.
        gens: generations, of ``exercise`` only.
        seed: of the pattern.
        block: most sectors a request; the tool's own choice when None.
        threads: requests at a time.
        order: of the requests.
        shift: let buffers start anywhere in a page.
        flush: flush at the end.
        ops: requests to be timed, of ``bench`` only.
        direction: of ``bench`` only.
        expect: what has to come of it.
    """

    main = "disk"
    op: Literal["io"] = "io"
    action: Literal["write", "verify", "exercise", "bench"] = "exercise"
    ops: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    direction: Literal["read", "write"] = "read"
    expect: Expect = "ok"


class StartIo(_Requests):
    """Start ``exercise`` in the background; ``gens`` of 1 stands for until it is stopped.

    Attributes:
        job: name for ``stop_io`` and ``wait_io``; the disk's label when empty.
        wait: generations to wait for before the scenario goes on.
    """

    main = "disk"
    op: Literal["start_io"] = "start_io"
    job: Job = ""
    wait: Annotated[int, Field(ge=0, le=1000)] = 1

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job or self.disk


class WaitIo(Step):
    """Wait until a background job has finished some generations more.

    Attributes:
        job: its name.
        more: generations.
    """

    main = "job"
    op: Literal["wait_io"] = "wait_io"
    job: Label
    more: Annotated[int, Field(ge=1, le=1000)] = 1


class StopIo(Step):
    """End a background job, or wait until it ended by itself, and look at what came of it.

    Attributes:
        job: its name.
        tell: whether to tell it to stop.
        expect: what has to come of it.
    """

    main = "job"
    op: Literal["stop_io"] = "stop_io"
    job: Label
    tell: bool = True
    expect: Expect = "ok"


class Flush(Step):
    """Have a disk make durable what it answered for.

    Attributes:
        disk: its label.
        expect: what has to come of it.
    """

    main = "disk"
    op: Literal["flush"] = "flush"
    disk: Label
    expect: Expect = "ok"


class Check(Step):
    """Compare what a backing device holds with the pattern, in dom0, past every cache.

    Attributes:
        disk: its label.
        first: first sector.
        count: sectors.
        gen: generation; None for the last one that a background job of the disk finished.
        seed: of the pattern.
    """

    main = "disk"
    op: Literal["check"] = "check"
    disk: Label
    first: Sectors = 0
    count: Sectors = 1024
    gen: Annotated[int, Field(ge=1, le=1 << 31)] | None = 1
    seed: Annotated[int, Field(ge=0, le=1 << 31)] = 1


class Fault(Step):
    """Make a disk fail, or mend it, from dom0.

    Attributes:
        disk: its label.
        kind: ``error``: requests to a part fail (dm ``error``); ``flakey``: it works for
            ``up_s`` and fails for ``down_s`` in turn (dm ``flakey``); ``delay``: requests take
            ``ms`` more (dm ``delay``); ``refuse_writes``; ``stall`` and ``go_on``: requests
            wait; ``grow``: by ``count`` sectors; ``heal``: end of all these. ``backend_state``:
            the backend says it is in ``state``; ``remove_nodes``: the frontend's directory
            goes from xenstore.
        first: first sector, of ``error``.
        count: sectors, of ``error`` and ``grow``.
        up_s: seconds, of ``flakey``.
        down_s: seconds, of ``flakey``.
        ms: milliseconds, of ``delay``.
        state: XenbusState, of ``backend_state``.
    """

    op: Literal["fault"] = "fault"
    disk: Label
    kind: Literal[
        "error",
        "flakey",
        "delay",
        "refuse_writes",
        "stall",
        "go_on",
        "grow",
        "heal",
        "backend_state",
        "remove_nodes",
    ]
    first: Sectors = 0
    count: Sectors = 8
    up_s: Annotated[int, Field(ge=0, le=3600)] = 2
    down_s: Annotated[int, Field(ge=0, le=3600)] = 1
    ms: Annotated[int, Field(ge=1, le=60_000)] = 250
    state: Annotated[int, Field(ge=0, le=8)] = 5


class Pause(Step):
    """Stop the guest's virtual CPUs."""

    op: Literal["pause"] = "pause"


class Unpause(Step):
    """Let a paused guest run on."""

    op: Literal["unpause"] = "unpause"


class Save(Step):
    """Save the guest to a file in dom0, which ends its domain."""

    op: Literal["save"] = "save"


class Restore(Step):
    """Bring the saved guest back."""

    op: Literal["restore"] = "restore"


class Migrate(Step):
    """Migrate the guest, live, to the host that it is on."""

    op: Literal["migrate"] = "migrate"


class Reboot(Step):
    """Restart the guest from inside and wait until it answers."""

    op: Literal["reboot"] = "reboot"


class PowerOff(Step):
    """Stop the guest from inside; nothing can be done with it afterwards."""

    op: Literal["power_off"] = "power_off"


class Destroy(Step):
    """End the guest's domain at once; nothing can be done with it afterwards."""

    op: Literal["destroy"] = "destroy"


class DisableDriver(Step):
    """Disable the driver's device."""

    op: Literal["disable_driver"] = "disable_driver"


class EnableDriver(Step):
    """Enable the driver's device."""

    op: Literal["enable_driver"] = "enable_driver"


class RemoveDriver(Step):
    """Remove the driver's device, which unloads the driver."""

    op: Literal["remove_driver"] = "remove_driver"


class InstallDriver(Step):
    """Install the driver's package once more."""

    op: Literal["install_driver"] = "install_driver"


class Wait(Step):
    """Do nothing for a while.

    Attributes:
        seconds: how long.
    """

    main = "seconds"
    op: Literal["wait"] = "wait"
    seconds: Annotated[float, Field(ge=0, le=3600)]


class JitterStep(Step):
    """Wait for a time that the scenario's seed chooses; see ``lab.suite.jitter``.

    Attributes:
        up_to: longest wait, in s.
        name: of the point: each name has waits of its own.
    """

    main = "up_to"
    op: Literal["jitter"] = "jitter"
    up_to: Annotated[float, Field(ge=SHORTEST, le=600)] = 1.0
    name: Line = "jitter"


class Together(Step):
    """Several lists of steps at the same time; it ends when all of them have.

    Attributes:
        lanes: the lists.
    """

    main = "lanes"
    op: Literal["together"] = "together"
    lanes: Annotated[tuple[tuple[AnyStep, ...], ...], Field(min_length=1, max_length=32)]


class Repeat(Step):
    """A list of steps, several times.

    Attributes:
        times: how often.
        steps: what.
    """

    op: Literal["repeat"] = "repeat"
    times: Annotated[int, Field(ge=1, le=10_000)]
    steps: Annotated[tuple[AnyStep, ...], Field(min_length=1)]


class Opaque(Step):
    """Something that was done and that a scenario cannot express: it is not done again.

    Attributes:
        what: in words.
    """

    main = "what"
    op: Literal["opaque"] = "opaque"
    what: Line


AnyStep: TypeAlias = Annotated[
    Attach
    | Detach
    | Partition
    | Format
    | PutFile
    | InGuest
    | Io
    | StartIo
    | WaitIo
    | StopIo
    | Flush
    | Check
    | Fault
    | Pause
    | Unpause
    | Save
    | Restore
    | Migrate
    | Reboot
    | PowerOff
    | Destroy
    | DisableDriver
    | EnableDriver
    | RemoveDriver
    | InstallDriver
    | Wait
    | JitterStep
    | Together
    | Repeat
    | Opaque,
    Field(discriminator="op"),
]

Together.model_rebuild()
Repeat.model_rebuild()

OPERATIONS: dict[str, type[Step]] = {
    str(one.model_fields["op"].default): one for one in get_args(get_args(AnyStep)[0])
}
"""Step types by the word that names them."""


class About(BaseModel):
    """Where a scenario comes from; says nothing about what it does.

    Attributes:
        title: what it shows, in a line.
        origin: what it was made from: a test, a report, a hand.
        driver: name of the driver package that it was run with.
        driver_sha256: identity of that package.
        profile: the profile that it was run with.
        accelerator: and the accelerator.
        outcome: what came of it, in a line.
        incomplete: why it does not say all; empty when it does, opaque steps apart.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(default="", max_length=300)
    origin: str = Field(default="", max_length=1000)
    driver: str = Field(default="", max_length=300)
    driver_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    profile: str = Field(default="", max_length=100)
    accelerator: str = Field(default="", max_length=100)
    outcome: str = Field(default="", max_length=1000)
    incomplete: str = Field(default="", max_length=300)


class Scenario(BaseModel):
    """A list of steps for a guest with the driver installed.

    Attributes:
        version: of the format.
        seed: decides every jitter.
        about: where it comes from.
        steps: what to do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = VERSION
    seed: Annotated[int, Field(ge=0, le=1 << 62)] = 1
    about: About = About()
    steps: tuple[AnyStep, ...]

    @model_validator(mode="after")
    def _bounded(self) -> Scenario:
        total, depth = weight(self.steps)
        if depth > MAX_NESTING:
            raise ValueError(f"groups are nested more than {MAX_NESTING} deep")
        if total > MAX_STEPS:
            raise ValueError(f"it runs {total} steps; the most are {MAX_STEPS}")
        return self

    @property
    def complete(self) -> bool:
        """Whether running it does all that it stands for."""
        return not self.about.incomplete and not any(
            isinstance(step, Opaque) for _, step in walk(self.steps)
        )

    def with_steps(self, steps: Sequence[AnyStep]) -> Scenario:
        """The same with other steps.

        Raises:
            pydantic.ValidationError: they are too many.
        """
        return Scenario(version=VERSION, seed=self.seed, about=self.about, steps=tuple(steps))

    def with_seed(self, seed: int) -> Scenario:
        """The same with another seed."""
        return self.model_copy(update={"seed": seed})

    def described(self, **about: str) -> Scenario:
        """The same with other words about it; they are cut to what the format allows."""
        cut = {
            name: value[: _LIMITS[name]] if name in _LIMITS else value
            for name, value in about.items()
        }
        return self.model_copy(update={"about": About(**{**self.about.model_dump(), **cut})})


_LIMITS = {
    name: next(one.max_length for one in field.metadata if hasattr(one, "max_length"))
    for name, field in About.model_fields.items()
    if any(hasattr(one, "max_length") for one in field.metadata)
}

Path = tuple[str | int, ...]
"""Where a step stands: ``("steps", 2, "repeat", "steps", 0)``, as pydantic says it."""


def walk(steps: Sequence[AnyStep], at: Path = ("steps",)) -> Iterator[tuple[Path, AnyStep]]:
    """Every step with its place, groups before what is in them."""
    for index, step in enumerate(steps):
        here = (*at, index)
        yield here, step
        if isinstance(step, Repeat):
            yield from walk(step.steps, (*here, "repeat", "steps"))
        elif isinstance(step, Together):
            for number, lane in enumerate(step.lanes):
                yield from walk(lane, (*here, "together", "lanes", number))


def weight(steps: Sequence[AnyStep]) -> tuple[int, int]:
    """How many steps are run, repetitions counted, and how deep groups are nested."""
    total, deepest = 0, 0
    for step in steps:
        inner: tuple[int, int] = (1, -1)
        if isinstance(step, Repeat):
            count, depth = weight(step.steps)
            inner = (count * step.times, depth)
        elif isinstance(step, Together):
            each = [weight(lane) for lane in step.lanes]
            inner = (sum(count for count, _ in each), max(depth for _, depth in each))
        total += inner[0]
        deepest = max(deepest, inner[1] + 1)
    return total, deepest


def where(path: Path) -> str:
    """A step's place for people, counted from 1: ``step 3.1``."""
    return "step " + ".".join(str(part + 1) for part in path if isinstance(part, int))


def disks(steps: Sequence[AnyStep]) -> dict[str, Any]:
    """The first attach of every disk, by label."""
    found: dict[str, Any] = {}
    for _, step in walk(steps):
        if isinstance(step, Attach):
            found.setdefault(step.disk, step)
    return found
