from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.images import debian

MISMATCH = (
    "E: Failed to fetch store:/main_binary-i386_Packages  File has unexpected size"
    " (1 != 2). Mirror sync in progress?\nE: Some index files failed to download.\n"
)


class Apt:
    """Answers each mmdebstrap with the next of the given errors, then succeeds."""

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)
        self.calls: list[list[str]] = []

    def __call__(self, argv: Sequence[str | Path], deadline: Deadline) -> CommandResult:
        words = [str(word) for word in argv]
        error = ""
        if "--unshare-helper" not in words:
            self.calls.append(words)
            error = self.errors.pop(0) if self.errors else ""
        said = "pvlab-package hello_2.10-3_amd64\n"
        return CommandResult("mmdebstrap", 25 if error else 0, said, error, 0.0, "host")


def bootstrap(apt: Apt, notes: list[str], tmp_path: Path) -> debian.Bootstrapped:
    return debian.bootstrap(
        apt,
        "bookworm",
        tmp_path / "x.tar",
        ["--include=hello"],
        Deadline(30),
        variant="extract",
        on_trouble=notes.append,
        pauses=(0.0, 0.0),
    )


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(debian.MIRROR_VARIABLE, raising=False)


def test_no_mirror_is_named_by_default(tmp_path: Path) -> None:
    apt = Apt()
    made = bootstrap(apt, [], tmp_path)
    assert made == debian.Bootstrapped({"hello": "2.10-3", "hello:amd64": "2.10-3"}, False)
    assert apt.calls[0][-2:] == ["bookworm", str(tmp_path / "x.tar")]
    assert "://" not in " ".join(apt.calls[0])


def test_the_users_mirror_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(debian.MIRROR_VARIABLE, "file:/srv/mirror")
    apt = Apt()
    bootstrap(apt, [], tmp_path)
    assert apt.calls[0][-1] == "file:/srv/mirror"


def test_a_mirror_that_recovers_is_asked_again(tmp_path: Path) -> None:
    apt, notes = Apt(MISMATCH, MISMATCH), list[str]()
    assert not bootstrap(apt, notes, tmp_path).main_suite_alone
    assert len(apt.calls) == 3
    assert len(notes) == 2


def test_a_mirror_that_does_not_recover_leaves_the_main_suite(tmp_path: Path) -> None:
    apt, notes = Apt(MISMATCH, MISMATCH, MISMATCH), list[str]()
    assert bootstrap(apt, notes, tmp_path).main_suite_alone
    assert "--setup-hook" not in " ".join(apt.calls[2])
    assert "--setup-hook" in " ".join(apt.calls[3])
    assert "main suite alone" in notes[-1]


def test_another_failure_is_not_tried_again(tmp_path: Path) -> None:
    apt = Apt("I: x\nE: Unable to locate package hello\nE: mmdebstrap failed to run\n")
    with pytest.raises(LabBroken, match="bookworm exited 25: E: Unable to locate package hello"):
        bootstrap(apt, [], tmp_path)
    assert len(apt.calls) == 1


def test_a_mirror_that_is_gone(tmp_path: Path) -> None:
    apt = Apt(*[MISMATCH] * 4)
    with pytest.raises(LabBroken, match="unexpected size"):
        bootstrap(apt, [], tmp_path)


def test_package_lines_with_epochs_and_noise() -> None:
    output = (
        "I: extracting archives...\npvlab-package qemu-utils_1%3a5.2+dfsg-11_amd64\n"
        "pvlab-package broken\npvlab-package libc6_2.31_i386\n"
    )
    assert debian.parse_packages(output) == {
        "qemu-utils": "1:5.2+dfsg-11",
        "qemu-utils:amd64": "1:5.2+dfsg-11",
        "libc6": "2.31",
        "libc6:i386": "2.31",
    }


def test_without_namespaces_and_root_there_is_no_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(argv: Sequence[str | Path], deadline: Deadline) -> CommandResult:
        return CommandResult("mmdebstrap", 1, "", "E: unshare() failed\n", 0.0, "host")

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabBroken, match=r"E: unshare\(\) failed"):
        debian.choose_mode(refuse, Deadline(1))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert debian.choose_mode(refuse, Deadline(1)) == "root"
