"""Rows of builds, and what a bisection keeps on disk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lab.bisect.builds import (
    Build,
    Order,
    Untestable,
    between,
    builds_in,
    builds_named,
    check,
    maker,
    natural,
)
from lab.bisect.state import Question, Run, Seen, State, load_state, write_state
from lab.core.errors import UsageError
from lab.core.paths import repo_root

sys.path.insert(0, str(repo_root() / "tests" / "unit" / "plugin"))

import plugin_fakes


def names(builds: list[Build]) -> list[str]:
    return [build.name for build in builds]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Packages whose versions and names have different orders."""
    for name, version in (("b-10", "0.0.1.0"), ("b-9", "0.0.2.0"), ("b-1", "0.0.10.0")):
        package = plugin_fakes.write_package(tmp_path / "builds" / name)
        inf = package / "xenvbd.inf"
        inf.write_text(inf.read_text().replace("0.0.3.0", version))
    (tmp_path / "builds" / "notes.txt").touch()
    (tmp_path / "builds" / ".git").mkdir()
    return tmp_path / "builds"


def test_natural_order():
    assert sorted(["r10", "r9", "R1", "r9a", "x"], key=natural) == ["R1", "r9", "r9a", "r10", "x"]
    assert sorted(["1.2", "a", "1.10"], key=natural) == ["1.2", "1.10", "a"]


def test_a_folder_by_name_and_by_version(folder: Path):
    assert names(builds_in(folder)) == ["b-1", "b-9", "b-10"]
    assert names(builds_in(folder, Order.VERSION)) == ["b-10", "b-9", "b-1"]


def test_a_version_that_cannot_be_read_is_bad_input(folder: Path):
    (folder / "b-9" / "xenvbd.inf").unlink()
    with pytest.raises(UsageError, match="no INF"):
        builds_in(folder, Order.VERSION)
    assert names(builds_in(folder)) == ["b-1", "b-9", "b-10"]
    with pytest.raises(Untestable, match="no INF"):
        check(folder / "b-9")


def test_a_file_of_names(tmp_path: Path):
    file = tmp_path / "revisions"
    file.write_text("# oldest first\nc3 fix\n\na1 add\n")
    assert names(builds_named(file)) == ["c3", "a1"]
    file.write_text("a\na\n")
    with pytest.raises(UsageError, match="twice"):
        builds_named(file)
    with pytest.raises(UsageError, match="cannot be read"):
        builds_named(tmp_path / "none")


def test_between(folder: Path):
    builds = builds_in(folder)
    assert names(between(builds, "b-9", str(folder / "b-10"))) == ["b-9", "b-10"]
    with pytest.raises(UsageError, match="does not come before"):
        between(builds, "b-10", "b-9")
    with pytest.raises(UsageError, match="did you mean 'b-10'"):
        between(builds, "b-1", "b-100")


def test_nowhere_and_nothing_are_bad_input(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read"):
        builds_in(tmp_path / "none")
    with pytest.raises(UsageError, match="no driver packages"):
        builds_in(tmp_path)


def test_a_command_makes_builds(tmp_path: Path):
    make = maker("sh -c 'echo made $0 > $1/log' {build} {out}")
    assert make(Build("r7"), tmp_path) == tmp_path
    assert (tmp_path / "log").read_text() == "made r7\n"
    with pytest.raises(Untestable, match="exited 3: no such revision"):
        maker("sh -c 'echo no such revision >&2; exit 3' {build} {out}")(Build("r7"), tmp_path)


@pytest.mark.parametrize("command", ["make {build}", "make {out}", "make '{build} {out}"])
def test_commands_that_cannot_be(command: str):
    with pytest.raises(UsageError, match="--build-command"):
        maker(command)


def test_no_such_program(tmp_path: Path):
    with pytest.raises(UsageError, match="No such file"):
        maker("/no/such/program {build} {out}")(Build("r7"), tmp_path)


QUESTION = Question(builds=("a", "b", "c"), test="t", confidence=0.95)


def test_a_state_goes_on(tmp_path: Path):
    file = tmp_path / "results" / "bisect.json"
    state = load_state(file, QUESTION)
    assert state == State(question=QUESTION)
    for seen in (Seen.FAILED, Seen.LOST, Seen.PASSED):
        state = state.plus(Run(build="b", seen=seen))
    state = state.plus(Run(build="a", seen=Seen.UNTESTABLE, message="does not build"))
    write_state(state, file)
    again = load_state(file, QUESTION)
    assert again == state
    tally = again.search().tally(1)
    assert (tally.failures, tally.attempts) == (1, 2)


def test_a_state_of_another_question_is_refused(tmp_path: Path):
    file = tmp_path / "bisect.json"
    write_state(State(question=QUESTION), file)
    with pytest.raises(UsageError, match="another bisection"):
        load_state(file, QUESTION.model_copy(update={"test": "u"}))


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 9}'])
def test_a_damaged_state_is_refused(tmp_path: Path, content: str):
    file = tmp_path / "bisect.json"
    file.write_text(content)
    with pytest.raises(UsageError, match="no state of a bisection"):
        load_state(file, QUESTION)


def test_a_state_with_a_run_of_no_build_is_refused(tmp_path: Path):
    file = tmp_path / "bisect.json"
    write_state(State(question=QUESTION).plus(Run(build="z", seen=Seen.PASSED)), file)
    with pytest.raises(UsageError, match="a run of z"):
        load_state(file, QUESTION)
