from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.errors import UsageError
from lab.nightly.matrix import Matrix, Split, load_matrix, parse_duration

PROFILES = ["standin", "standin-xm"]
GOOD = """
budget = "1h30m"
profiles = ["standin", "standin-xm"]

[[driver]]
name = "trunk"
package = "builds/trunk.zip"

[[driver]]
name = "release"

[[suite]]
name = "standard"
split = "test"

[[suite]]
name = "soak"
intensity = "soak"

[[exclude]]
profile = "*-xm"
suite = "soak"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "matrix.toml"
    file.write_text(text)
    return file


def test_every_combination_but_those_excluded(tmp_path: Path) -> None:
    matrix = load_matrix(write(tmp_path, GOOD), PROFILES)
    assert matrix.budget == 5400
    assert [(c.profile, c.driver.name, c.suite.name) for c in matrix.cells()] == [
        ("standin", "trunk", "standard"),
        ("standin", "trunk", "soak"),
        ("standin", "release", "standard"),
        ("standin", "release", "soak"),
        ("standin-xm", "trunk", "standard"),
        ("standin-xm", "release", "standard"),
    ]
    assert matrix.suites[0].split is Split.TEST
    assert matrix.drivers[0].package == tmp_path / "builds" / "trunk.zip"
    assert matrix.drivers[1].package is None


DRIVER = '[[driver]]\nname = "trunk"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "driver"),
        ("budget = 'soon'\n" + DRIVER, "'soon' is no length of time"),
        ("budget = '0h'\n" + DRIVER, "no length of time"),
        ("profiles = ['standing']\n" + DRIVER, "no profile 'standing' (did you mean 'standin'?)"),
        ("profiles = ['standin', 'standin']\n" + DRIVER, "'standin' is there twice"),
        (DRIVER + DRIVER, "'trunk' is there twice"),
        ("nightly = true\n" + DRIVER, "nightly: "),
        (DRIVER + "[[exclude]]\n", "excludes everything"),
        (DRIVER + "[[exclude]]\ndriver = 'trunck'\n", "did you mean 'trunk'?"),
        (DRIVER + "[[exclude]]\ndriver = 'trunk'\n", "leaves nothing to run"),
        ("profiles = [", "not valid TOML"),
        (DRIVER + "[mail]\nhost='h'\nfrom=\"a@b\\nBcc: x\"\nto=['c@d']\n", "one line"),
        (DRIVER + "[mail]\nhost='h'\nfrom='a@b'\nto=['c@d']\npassword='x'\n", "mail.password"),
        (DRIVER + "[webhook]\nurl='https://x'\n", "webhook.url"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_matrix(write(tmp_path, text), PROFILES)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_matrix(tmp_path / "matrix.toml", PROFILES)


@pytest.mark.parametrize(
    ("text", "seconds"), [("8h", 28800), ("1h30m", 5400), ("90m", 5400), ("45s", 45), ("1d", 86400)]
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_names_go_into_paths() -> None:
    with pytest.raises(ValueError, match="pattern"):
        Matrix.model_validate({"driver": [{"name": "../x"}]})
