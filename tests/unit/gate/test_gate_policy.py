"""Policies from TOML."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.errors import UsageError
from lab.gate.policy import Policy, bundled, load_policy
from lab.suite.intensity import Level


def test_policies_that_come_with_the_lab_are_valid():
    assert bundled() == ("release", "standard")
    standard, release = load_policy(), load_policy("release")
    assert standard.name == "standard"
    assert release.failures.repeats == "rate"
    assert standard.sha256 != release.sha256


def test_a_file_is_read(tmp_path: Path):
    file = tmp_path / "gate.toml"
    file.write_text(
        '[suite]\nintensity = "smoke"\nkeyword = "attach"\n[performance]\nlimit = 0.2\n'
    )
    policy = load_policy(file)
    assert (policy.name, policy.suite.intensity) == ("gate", Level.SMOKE)
    assert policy.performance.limit == 0.2


def test_the_hash_is_of_what_is_asked_not_of_how_it_is_written(tmp_path: Path):
    one, other = tmp_path / "a.toml", tmp_path / "b.toml"
    one.write_text('name = "x"\n[failures]\nmost = 9\nrate = 0.2\n')
    other.write_text('# said\nname = "x"\n[failures]\nrate = 0.20\nmost = 9\n')
    assert load_policy(one).sha256 == load_policy(other).sha256
    assert Policy(name="x").sha256 != load_policy(one).sha256


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[failures]\nrate = 2\n", "failures.rate: Input should be less than 1"),
        ("[failures]\nrats = 2\n", "failures.rats: Extra inputs are not permitted"),
        ("[performance]\nlooks = [4, 4]\n", "each has to be larger"),
        ("[performance]\nlooks = [1]\n", "performance.looks.0"),
        ("[lab\n", "not TOML"),
        ("[failures]\nrepeats = 0\n", "failures.repeats"),
    ],
)
def test_malformed_is_one_clear_line(tmp_path: Path, content: str, said: str):
    file = tmp_path / "gate.toml"
    file.write_text(content)
    with pytest.raises(UsageError) as error:
        load_policy(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_names_get_a_hint(tmp_path: Path):
    with pytest.raises(UsageError, match="did you mean 'release'"):
        load_policy("relase")
    with pytest.raises(UsageError, match="one of: release, standard"):
        load_policy(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        load_policy(tmp_path)
