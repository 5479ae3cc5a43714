from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenario_strategies import scenarios, step_lists

from lab.core.errors import UsageError
from lab.scenario.model import (
    OPERATIONS,
    Attach,
    Detach,
    Io,
    Opaque,
    Reboot,
    Repeat,
    Scenario,
    walk,
    weight,
)
from lab.scenario.sense import problems, repaired
from lab.scenario.text import dumps, load, loads, looks_like, outline

HAND_WRITTEN = """\
pvlab_scenario: 1
seed: 7
about: {title: detach under I/O, driver: gplpv}
steps:
- attach: {disk: hdc, size: 8 MiB}
- attach: {disk: data, device: /dev/sdb, size: 40961, backing: sparse, sector_bytes: 4096}
- start_io: {disk: hdc, threads: 2, order: random, job: copy}
- repeat:
    times: 3
    steps:
    - together:
      - - detach: {disk: data, force: yes}
      - - jitter: 0.5
        - pause
        - unpause:
    - attach: data
- stop_io: {job: copy, expect: any}
- io: {disk: hdc, action: verify, count: 1 MiB}
- reboot
"""

few = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)


def test_what_people_write_is_read():
    scenario = loads(HAND_WRITTEN)
    assert scenario.seed == 7
    assert scenario.complete
    first, second = scenario.steps[:2]
    assert first == Attach(disk="hdc", size=16384)
    assert isinstance(second, Attach)
    assert (second.vdev, second.size, second.sector_bytes) == ("sdb", 40961, 4096)
    assert scenario.steps[-2] == Io(disk="hdc", action="verify", count=2048)
    assert scenario.steps[-1] == Reboot()
    assert "  at the same time" in outline(scenario)


def test_what_is_written_is_what_people_write():
    text = dumps(loads(HAND_WRITTEN))
    assert "- attach: {disk: hdc, size: 8 MiB}" in text
    assert "    - attach: data" in text
    assert "        - pause\n" in text
    assert looks_like(text.encode())


@few
@given(scenarios)
def test_what_is_written_is_read_back(scenario):
    assert loads(dumps(scenario)) == scenario


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("threads: 2", "thread: 2", "f.yaml:7: unknown key 'thread' (did you mean 'threads'?)"),
        ("- reboot", "- rebot", "f.yaml:19: unknown step 'rebot' (did you mean 'reboot'?)"),
        ("seed: 7", "sead: 7", "f.yaml:2: unknown key 'sead' (did you mean 'seed'?)"),
        ("{title:", "{titel:", "f.yaml:3: unknown key 'titel' (did you mean 'title'?)"),
        ("8 MiB", "8 MB", "f.yaml:5: step 1: size: '8 MB' is no size"),
        ("8 MiB", "0", "f.yaml:5: step 1: a disk needs a size"),
        ("/dev/sdb", "floppy", "f.yaml:6: step 2: device: `floppy` is not a virtual block device"),
        ("sparse", "file", "f.yaml:6: step 2: only a sparse backing device"),
        ("disk: hdc, size", "disk: one, size", "f.yaml:5: step 1: 'one' is no virtual device"),
        ("times: 3", "times: many", "f.yaml:9: step 4: times: input should be a valid integer"),
        ("times: 3", "times: 9999999", "f.yaml:9: step 4: times: input should be less than"),
        ("- pause", "- pause: 3", "f.yaml:14: step 4.1.2.2: `pause` takes no value"),
        ("- - jitter: 0.5", "- - jitter: 900", "f.yaml:13: step 4.1.2.1: up_to: input should be"),
        ("- attach: data", "- attach: nodata", "f.yaml:16: step 4.2: the disk 'nodata' is new"),
        ("job: copy, expect", "job: move, expect", "f.yaml:17: step 5: no job 'move' runs"),
        ("action: verify", "action: read", "f.yaml:18: step 6: action: input should be 'write'"),
        ("pvlab_scenario: 1", "pvlab_scenario: 2", "f.yaml:1: format 2 is unknown"),
        ("pvlab_scenario: 1", "scenario: 1", "f.yaml: not a scenario"),
        ("- reboot", "- reboot: {}\n  detach: hdc", "f.yaml:19: step 7: a step is one word"),
        ("- reboot", "- [reboot]", "f.yaml:19: should be keys with values"),
        ("seed: 7", "seed: 7\nseed: 8", "f.yaml:3: 'seed' is there twice"),
        ("seed: 7", "seed: &a 7", "f.yaml:2: anchors and aliases are not read"),
        ("seed: 7", "seed: !!python/name:os.system ''", "f.yaml:2: "),
        ("seed: 7", "seed: '", "f.yaml:"),
    ],
)
def test_mistakes_are_told_with_their_line(was, becomes, said):
    assert was in HAND_WRITTEN
    with pytest.raises(UsageError) as caught:
        loads(HAND_WRITTEN.replace(was, becomes), "f.yaml")
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 5000,
        b"pvlab_scenario: 1",
        b"pvlab_scenario: 1\nsteps: 3",
        b"pvlab_scenario: 1\nsteps:\n- attach\n",
        b"pvlab_scenario: 1\nsteps:\n- together: [[attach], 3]\n",
        b"a" * ((1 << 20) + 1),
        b"pvlab_scenario: 1\nsteps:\n" + b"- repeat: {times: 10000, steps: [reboot]}\n" * 3,
        b"pvlab_scenario: 1\nsteps:\n- ? [a]\n  : b\n",
        b"pvlab_scenario: 1\nseed: 1e400\nsteps: []",
        b"pvlab_scenario: 1\nseed: 0x_\nsteps: []",
        b"pvlab_scenario: 1\nsteps: \x00",
    ],
)
def test_what_is_no_scenario_is_refused_in_a_line(data):
    with pytest.raises(UsageError) as caught:
        loads(data, "f.yaml")
    assert "\n" not in str(caught.value)


@few
@given(st.binary(max_size=200))
def test_damage_is_refused_and_nothing_else(noise):
    text = HAND_WRITTEN.encode()
    cut = len(noise) * 7 % len(text)
    with contextlib.suppress(UsageError):
        loads(text[:cut] + noise + text[cut + len(noise) :])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read"):
        load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)


def test_opaque_steps_make_it_incomplete():
    scenario = Scenario(steps=(Repeat(times=2, steps=(Opaque(what="pulled the plug"),)),))
    assert not scenario.complete
    assert dumps(scenario).startswith("# Not complete")
    assert loads(dumps(scenario)) == scenario
    assert not Scenario(steps=()).described(incomplete="the test was killed").complete


def test_words_about_it_are_cut():
    assert len(Scenario(steps=()).described(title="x" * 5000).about.title) == 300


@few
@given(step_lists)
def test_repaired_steps_can_be_done(steps):
    fixed = repaired(steps)
    assert not list(problems(fixed))
    assert weight(fixed)[0] <= weight(steps)[0]
    if not list(problems(steps)):
        assert sum(1 for _ in walk(fixed)) <= sum(1 for _ in walk(steps))


def test_what_depends_on_a_missing_step_goes_with_it():
    steps = (
        Detach(disk="hdc"),
        Io(disk="hdc"),
        Repeat(times=2, steps=(Attach(disk="hdd", size=8),)),
        Reboot(),
    )
    # The second round of the repetition meets the disk that the first one left.
    assert repaired(steps) == (Reboot(),)


def test_every_operation_has_its_word():
    assert len(OPERATIONS) == 30
    assert all(kind.model_fields["op"].default == word for word, kind in OPERATIONS.items())
