"""A place whose parts note what is done to them."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

from lab.core.errors import DeadlineExpired, DriverFailure, GuestCrashed
from lab.guest.crash import CrashKind, CrashReport
from lab.guest.diskio import IoResult
from lab.guest.errors import GuestSilent
from lab.suite.backing import Mapped

GOOD = IoResult(0, 0, 4, 10, (), (), ())
REFUSED = IoResult(2, 0, 4, 10, (), (), ())
WRONG = IoResult(0, 1, 4, 10, (), ("sector=5 gen=1 found=zeroes",), ())
DONE = IoResult(0, 0, 4, 10, (), (), (1, 2, 3))

PANIC = CrashReport(
    CrashKind.SERIAL,
    "Kernel panic - not syncing: pvlab",
    ("BUG: unable to handle page fault", "Kernel panic - not syncing: pvlab"),
)


class Crash:
    """A crash monitor; the guest crashes when ``after`` is among what was done."""

    def __init__(self, calls):
        self.calls = calls
        self.after = None
        self.found = PANIC
        self.retired = False

    def check(self, deadline):
        seen = self.after is not None and any(self.after in call for call in self.calls)
        return self.found if seen and not self.retired else None

    def raise_if_seen(self, deadline):
        if self.check(deadline):
            raise GuestCrashed(f"crashed: {self.found.summary}", evidence=self.found.evidence)

    def retire(self):
        self.retired = True

    @contextlib.contextmanager
    def guard(self, operation, deadline):
        try:
            yield
        except (DriverFailure, DeadlineExpired, GuestSilent) as error:
            if self.check(deadline) is None:
                raise
            raise GuestCrashed(
                f"crashed during {operation}: {self.found.summary}", evidence=self.found.evidence
            ) from error


class Place:
    """All of a place that a scenario touches."""

    def __init__(self, tmp_path):
        self.calls = []
        self.fails = {}
        self.broken = ""
        self.scratch = tmp_path
        self.serial = "booted\n"
        self.numbers = [0]
        self.sizes = {}
        self.next_number = 1
        self.timings = {}
        self.domain = SimpleNamespace(domid=1, name="virtdemo")
        self.deadlines = SimpleNamespace(boot=5, attach=5, command=5, crash=5, evidence=5)
        self.dom0 = self.vg = object()
        self.toolstack = self.noun("toolstack", "pause", "unpause", "destroy")
        self.xenstore = self.noun("xenstore", "write", "rm")
        self.crash = Crash(self.calls)
        channel = self.noun("channel", run=SimpleNamespace(ok=True, exit_code=0))
        self.guest = SimpleNamespace(
            crash=self.crash,
            channel=channel,
            disks=self.noun("disks", "partition", "format", list=self.list_disks),
            files=self.noun("files", "put_bytes"),
            drivers=self.noun(
                "drivers",
                "rescan",
                **dict.fromkeys(
                    ("disable", "enable", "remove", "install"), SimpleNamespace(reboot_needed=False)
                ),
            ),
        )

    def noun(self, noun, *plain, **answers):
        made = SimpleNamespace()
        for verb, answer in {**dict.fromkeys(plain), **answers}.items():
            setattr(made, verb, self.verb(f"{noun}.{verb}", answer))
        return made

    def verb(self, name, answer=None):
        def call(*args, **kwargs):
            words = [str(one) for one in args if isinstance(one, str | int | tuple)]
            words += [f"{key}={value}" for key, value in kwargs.items() if key in SHOWN]
            self.note(" ".join([name, *words]))
            return answer(*args, **kwargs) if callable(answer) else answer

        return call

    def note(self, line):
        if line != "disks.list":
            self.calls.append(line)
        for part, error in list(self.fails.items()):
            if part in line:
                raise error

    def list_disks(self, deadline, *, rescan=False):
        return [SimpleNamespace(number=number) for number in self.numbers]

    def appear(self, sectors):
        number, self.next_number = self.next_number, self.next_number + 1
        self.numbers.append(number)
        self.sizes[number] = sectors
        return number

    def health(self, deadline):
        return SimpleNamespace(ok=not self.broken, cause=self.broken)

    def guest_serial(self, deadline):
        return self.serial


SHOWN = ("gen", "gens", "threads", "order", "shift", "flush", "force", "size_mib", "op", "ops")


class FakeMapped(Mapped):
    """A device-mapper device that notes what is done to it."""

    def __init__(self, place, path, sectors, kind="phy"):
        self.path, self.sectors, self.kind = path, sectors, kind
        self.place = place
        self.holds = ()

    def wrong(self, first, count, deadline, *, gen=1, seed=1):
        self.place.note(f"check {first} {count} gen={gen}")
        return self.holds

    def _swap(self, table, deadline):
        self.place.note(f"table {table.splitlines()[-1]}")

    def _linear(self, first, count):
        return f"{first} {count} linear"

    _below = "below"

    def _modprobe(self, module, deadline):
        pass

    def suspend(self, deadline):
        self.place.note("suspend")

    def resume(self, deadline):
        self.place.note("resume")


def install(monkeypatch, module, place):
    """Put fakes in the place of what a runner's module uses."""
    made = iter(range(1, 100))

    def backing(kind):
        def make(sectors, deadline, **how):
            path = f"/dev/{kind}-{next(made)}"
            place.note(f"make {path} {sectors}" + "".join(f" {k}={v}" for k, v in how.items()))
            return FakeMapped(place, path, sectors, "file" if kind == "file" else "phy")

        return make

    backings = SimpleNamespace(
        exact=backing("exact"),
        volume=backing("volume"),
        file=backing("file"),
        sparse=backing("sparse"),
        cached=lambda *a: SimpleNamespace(disk=backing("cached")(*a)),
    )

    def ends(spec):
        return SimpleNamespace(
            devid=spec.devid,
            backend=SimpleNamespace(path=f"/backend/{spec.devid}"),
            frontend=SimpleNamespace(path=f"/frontend/{spec.devid}"),
        )

    sizes = {}

    def attach(spec):
        place.note(f"attach {spec.path} {spec.vdev} {spec.mode}")
        number = place.appear(sizes_of(spec.path))
        sizes[spec.devid] = number
        return ends(spec), SimpleNamespace(number=number)

    def sizes_of(path):
        line = next(one for one in place.calls if one.startswith(f"make {path} "))
        return int(line.split()[2])

    def detach(toolstack, xenstore, domain, devid, deadline, *, force=False, while_waiting=None):
        place.note(f"detach {devid}" + (" force" if force else ""))
        place.numbers.remove(sizes.pop(devid))

    vbd = SimpleNamespace(
        attach=lambda ts, xs, domain, spec, deadline, while_waiting: attach(spec)[0],
        detach=detach,
        read=lambda xs, domid, devid, deadline: SimpleNamespace(
            devid=devid,
            backend=SimpleNamespace(path=f"/backend/{devid}"),
            frontend=SimpleNamespace(path=f"/frontend/{devid}"),
        ),
    )

    class Job:
        def __init__(self):
            self.ends_with = DONE

        def wait_busy(self, deadline, *, more=1):
            place.note(f"busy {more}")

        def end(self, deadline):
            place.note("end job")
            return self.ends_with

        def result(self, deadline):
            place.note("job's result")
            return self.ends_with

    class Io:
        def __init__(self, channel):
            pass

        def size(self, number, deadline):
            return SimpleNamespace(sectors=place.sizes.get(number, 99))

        def start(self, number, first, count, deadline, **how):
            place.note(f"start {number} {first} {count} threads={how.get('threads', 1)}")
            return Job()

        def flush(self, number, deadline):
            place.note(f"flush {number}")
            return GOOD

    def verb(name):
        def call(self, number, first, count, deadline, **how):
            shown = "".join(f" {k}={v}" for k, v in how.items() if k not in ("gen", "seed"))
            place.note(f"{name} {number} {first} {count}{shown}")
            return place.results.pop(0) if getattr(place, "results", None) else GOOD

        return call

    for name in ("write", "verify", "exercise", "bench"):
        setattr(Io, name, verb(name))

    def at_once(place_, moves, lab):
        place.note("at once: " + ", ".join(f"{m.kind} {m.spec.vdev}" for m in moves))
        for move in moves:
            if move.kind == "attach":
                number = place.appear(sizes_of(move.spec.path))
                sizes[move.spec.devid] = number
            else:
                place.numbers.remove(sizes.pop(move.spec.devid))

    lifecycle = SimpleNamespace(
        **{
            name: lambda p, deadline, name=name: place.note(name)
            for name in ("save", "restore", "migrate", "reboot", "power_off")
        }
    )
    monkeypatch.setattr(module, "Backings", lambda dom0, vg: backings)
    monkeypatch.setattr(
        module, "BlockDevices", lambda p, lab: SimpleNamespace(attach=lambda spec: attach(spec))
    )
    monkeypatch.setattr(module, "vbd", vbd)
    monkeypatch.setattr(module, "DiskIo", Io)
    monkeypatch.setattr(module, "at_once", at_once)
    monkeypatch.setattr(module, "lifecycle", lifecycle)
    return place
