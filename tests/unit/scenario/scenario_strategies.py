"""Scenarios of every kind, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from lab.scenario.model import (
    About,
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
)
from lab.scenario.sense import repaired

disks = st.sampled_from(["hdc", "hdd", "sdb", "xvdf"])
jobs = st.sampled_from(["", "copy", "no", "1e3"])
sectors = st.integers(0, 1 << 42)
sizes = st.integers(1, 1 << 30) | st.integers(1, 1 << 19).map(lambda mib: mib * 2048)
line = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=60)
may_fail = st.booleans()
requests = {
    "disk": disks,
    "first": sectors,
    "count": sectors,
    "gen": st.integers(1, 1 << 31),
    "gens": st.integers(1, 1_000_000),
    "seed": st.integers(0, 1 << 31),
    "block": st.none() | st.integers(1, 1 << 16),
    "threads": st.integers(1, 64),
    "order": st.sampled_from(["seq", "random"]),
    "shift": st.booleans(),
    "flush": st.booleans(),
    "may_fail": may_fail,
}
expect = st.sampled_from(["ok", "errors", "any"])
kinds = Fault.model_fields["kind"].annotation.__args__

plain_steps = st.one_of(
    st.builds(
        Attach,
        disk=disks,
        device=st.sampled_from(["", "sde", "/dev/xvdg"]),
        size=st.none() | sizes,
        mode=st.sampled_from(["r", "w", "w!"]),
        backing=st.sampled_from(["volume", "file", "sparse", "cached"]),
        may_fail=may_fail,
        find=st.booleans(),
    ),
    st.builds(Attach, disk=disks, size=sizes, room=sectors),
    st.builds(
        Attach, disk=disks, size=sizes, backing=st.just("sparse"), sector_bytes=st.just(4096)
    ),
    st.builds(Detach, disk=disks, force=st.booleans(), may_fail=may_fail),
    st.builds(
        Partition, disk=disks, letter=st.sampled_from("XYZ"), size_mib=st.none() | st.just(9)
    ),
    st.builds(Format, letter=st.sampled_from("XY"), file_system=st.sampled_from(["ntfs", "fat32"])),
    st.builds(PutFile, path=st.just(r"C:\pvlab\a b.bin"), size_bytes=st.integers(0, 1 << 20)),
    st.builds(InGuest, command=line),
    st.builds(Io, action=st.sampled_from(["write", "verify", "bench"]), expect=expect, **requests),
    st.builds(StartIo, job=jobs, wait=st.integers(0, 9), **requests),
    st.builds(WaitIo, job=jobs.filter(bool) | disks, more=st.integers(1, 9)),
    st.builds(StopIo, job=jobs.filter(bool) | disks, tell=st.booleans(), expect=expect),
    st.builds(Flush, disk=disks, expect=expect),
    st.builds(Check, disk=disks, first=sectors, count=sectors, gen=st.none() | st.integers(1, 9)),
    st.builds(Fault, disk=disks, kind=st.sampled_from(kinds), first=sectors, count=sectors),
    st.sampled_from(
        [
            kind()
            for kind in (
                *(Pause, Unpause, Save, Restore, Migrate, Reboot, PowerOff, Destroy),
                *(DisableDriver, EnableDriver, RemoveDriver, InstallDriver),
            )
        ]
    ),
    st.builds(Wait, seconds=st.floats(0, 3600)),
    st.builds(JitterStep, up_to=st.floats(0.001, 600), name=line),
    st.builds(Opaque, what=line),
)

any_step = st.recursive(
    plain_steps,
    lambda inner: (
        st.builds(Repeat, times=st.integers(1, 5), steps=st.lists(inner, min_size=1, max_size=3))
        | st.builds(Together, lanes=st.lists(st.lists(inner, max_size=3), min_size=1, max_size=3))
    ),
    max_leaves=8,
)

step_lists = st.lists(any_step, max_size=8)

abouts = st.builds(
    About,
    title=line,
    origin=st.just("") | line,
    driver_sha256=st.sampled_from(["", "ab" * 32]),
    incomplete=st.just("") | line,
)

scenarios = st.builds(
    lambda seed, about, steps: Scenario(seed=seed, about=about, steps=repaired(steps)),
    st.integers(0, 1 << 62),
    abouts,
    step_lists,
)
