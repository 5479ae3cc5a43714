"""lab.toml: discovery, inheritance and one-line refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.config.load import find_config, load_profile, profile_names
from lab.config.profile import EnvPassword, Profile
from lab.core.errors import UsageError
from lab.core.paths import repo_root


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PVLAB_CONFIG", raising=False)


def write(text: str, path: Path = Path("lab.toml")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(text: str, name: str | None = None) -> str:
    write(text)
    with pytest.raises(UsageError) as caught:
        load_profile(name)
    assert caught.value.exit_code == 2
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_built_in_without_a_file() -> None:
    assert find_config() is None
    assert load_profile() == Profile()
    assert profile_names() == ["standin"]


def test_discovery_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = write('[profiles.standin]\nguest_image = "here"\n')
    by_env = write('[profiles.standin]\nguest_image = "by-env"\n', tmp_path / "env.toml")
    named = write('[profiles.standin]\nguest_image = "named"\n', tmp_path / "named.toml")
    assert find_config() == here
    assert load_profile().guest_image == "here"
    monkeypatch.setenv("PVLAB_CONFIG", str(by_env))
    assert load_profile().guest_image == "by-env"
    assert load_profile(path=named).guest_image == "named"


def test_named_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"gone\.toml: no such configuration file.*--config"):
        load_profile(path=Path("gone.toml"))
    monkeypatch.setenv("PVLAB_CONFIG", "gone.toml")
    with pytest.raises(UsageError, match="named by PVLAB_CONFIG"):
        load_profile()


def test_extends_merges_tables_and_replaces_values() -> None:
    write(
        """
        default = "leaf"
        [profiles.base]
        extends = "standin"
        crash_patterns = ["base"]
        memory.guest_mib = 256
        winrm.credentials = { env = "A" }
        [profiles.leaf]
        extends = "base"
        memory.dom0_mib = 512
        crash_patterns = ["leaf"]
        winrm = { credentials = { env = "B" }, port = 15985 }
        """
    )
    leaf = load_profile()
    assert leaf.name == "leaf"
    assert (leaf.memory.host_mib, leaf.memory.dom0_mib, leaf.memory.guest_mib) == (2048, 512, 256)
    assert leaf.crash_patterns == ("leaf",)
    assert leaf.winrm.credentials == EnvPassword(env="B")
    assert leaf.winrm.port == 15985
    assert load_profile("base").memory.dom0_mib == 768
    assert load_profile("standin") == Profile()
    assert profile_names() == ["base", "leaf", "standin"]


def test_image_credentials_can_replace_env() -> None:
    write(
        """
        [profiles.a]
        winrm.credentials = { env = "A" }
        [profiles.b]
        extends = "a"
        winrm.credentials = "image"
        """
    )
    assert load_profile("b").winrm.credentials == "image"


def test_driver_is_relative_to_the_file(tmp_path: Path) -> None:
    path = write('[profiles.standin]\ndriver = "pkg.zip"\n', tmp_path / "sub" / "lab.toml")
    assert load_profile(path=path).driver == tmp_path / "sub" / "pkg.zip"
    write('[profiles.standin]\ndriver = "/abs/pkg"\n', path)
    assert load_profile(path=path).driver == Path("/abs/pkg")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[profiles.standin.deadlines]\natach = 3\n",
            "lab.toml:profiles.standin.deadlines.atach: unknown key (did you mean 'attach'?)",
        ),
        (
            '[profiles.standin]\ntoolstak = "xl"\n',
            "lab.toml:profiles.standin.toolstak: unknown key (did you mean 'toolstack'?)",
        ),
        (
            "[profiles.standin]\nguest_mib = 256\n",
            "lab.toml:profiles.standin.guest_mib: unknown key "
            "(it belongs in [profiles.standin.memory])",
        ),
        ("defualt = 'x'\n", "lab.toml:defualt: unknown key (did you mean 'default'?)"),
        (
            "[profile.standin]\n",
            "lab.toml:profile: unknown key (did you mean 'profiles'?)",
        ),
        ("zzz = 1\n", "lab.toml:zzz: unknown key (known keys: default, profiles)"),
        ("default = 3\n", "lab.toml:default: should be the name of a profile"),
        ("profiles = 3\n", "lab.toml:profiles: should be a table of profiles"),
        (
            "profiles.standin = 3\n",
            "lab.toml:profiles.standin: should be a table (write [profiles.standin])",
        ),
        ("default = 'standing'\n", "lab.toml: no profile 'standing' (did you mean 'standin'?)"),
        ("default = 'x'\n", "lab.toml: no profile 'x' (there are: standin)"),
        (
            "[profiles.standin]\nextends = 'a'\n[profiles.a]\nextends = 'standin'\n",
            "lab.toml:profiles.a.extends: goes in a circle: standin -> a -> standin",
        ),
        (
            "[profiles.standin]\nextends = 'bse'\n[profiles.base]\n",
            "lab.toml:profiles.standin.extends: no profile 'bse' (did you mean 'base'?)",
        ),
        (
            "[profiles.standin]\nextends = 3\n",
            "lab.toml:profiles.standin.extends: should be a profile's name",
        ),
        (
            '[profiles.standin]\nname = "x"\n',
            "lab.toml:profiles.standin.name: unknown key (known keys: crash_patterns, "
            "deadlines, driver, extends, guest_image, guest_kind, guest_label, host_image, "
            "memory, toolstack, winrm)",
        ),
        (
            '[profiles.standin]\ntoolstack = "xe"\n',
            "lab.toml:profiles.standin.toolstack: input should be 'xl' or 'xm'",
        ),
        (
            "[profiles.standin.winrm]\nport = 70000\nusername = ''\n",
            "lab.toml:profiles.standin.winrm.port: input should be less than or equal to "
            "65535; 1 more like this",
        ),
        (
            '[profiles.standin]\nwinrm.credentials = "hunter2"\n',
            'lab.toml:profiles.standin.winrm.credentials: must be "image" or { env = "NAME" }',
        ),
        (
            '[profiles.standin]\ncrash_patterns = ["ok", "("]\n',
            "lab.toml:profiles.standin.crash_patterns.1: not a regular expression: missing ), "
            "unterminated subpattern at position 0",
        ),
        (
            "[profiles.standin]\nmemory = 3\n",
            "lab.toml:profiles.standin.memory: input should be a valid dictionary or instance "
            "of Memory",
        ),
    ],
)
def test_refusals(text: str, line: str) -> None:
    assert refusal(text) == line


def test_refusal_names_the_profile_that_has_the_key() -> None:
    text = "[profiles.base]\nmemory.host_mib = 1.5\n[profiles.leaf]\nextends = 'base'\n"
    assert refusal(text, "leaf").startswith("lab.toml:profiles.base.memory.host_mib: ")


@pytest.mark.parametrize("where", ["", ".winrm"])
def test_password_in_the_file_is_refused_and_not_repeated(where: str) -> None:
    line = refusal(f'[profiles.standin{where}]\npassword = "hunter2"\n')
    assert "passwords do not belong in this file" in line
    assert "hunter2" not in line


def test_damaged_files() -> None:
    assert re.match(r"lab\.toml: not valid TOML: .*line 1", refusal("= 3\n"))
    Path("lab.toml").write_bytes(b"# \xff\n")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        load_profile()


def test_unused_profile_with_a_mistake_does_not_stand_in_the_way() -> None:
    write("[profiles.other]\noops = 1\n")
    assert load_profile() == Profile()


class TestDocumentedFile:
    """The repository's own lab.toml documents what the models say."""

    path = repo_root() / "lab.toml"

    def test_says_the_defaults(self) -> None:
        assert load_profile(path=self.path) == Profile()

    def test_mentions_every_field(self) -> None:
        text = self.path.read_text(encoding="utf-8")

        def keys(value: dict[str, Any]) -> list[str]:
            return [
                k for key, v in value.items() for k in (keys(v) if isinstance(v, dict) else [key])
            ]

        missing = [
            key
            for key in keys(Profile().model_dump())
            if key != "name" and not re.search(rf"^(# )?{key} = ", text, re.MULTILINE)
        ]
        assert missing == []

    def test_example_in_the_comments_works(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        example = text[text.index("# [profiles.w2k3]") :]
        write(re.sub(r"^# ?", "", example, flags=re.MULTILINE))
        profile = load_profile("w2k3")
        assert profile.guest_kind == "windows"
        assert profile.crashed_in("*** STOP: 0x000000D1 (0x0,0x2,0x0,0xF8)") is not None


PRINTABLE = st.text(st.characters(max_codepoint=0x7E), max_size=12)


@given(
    st.dictionaries(
        PRINTABLE | st.sampled_from(["driver", "guest_label", "extends", "memory", "winrm"]),
        st.one_of(
            st.integers(-(2**63), 2**63 - 1),
            PRINTABLE,
            st.lists(st.integers(0, 9), max_size=2),
            st.dictionaries(st.sampled_from(["port", "guest_mib", "x"]), st.integers(0, 99)),
        ),
        max_size=4,
    )
)
def test_any_table_gives_a_profile_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("any") / "lab.toml"
    # JSON strings, numbers and lists are TOML too, tables are not.
    lines = [
        "profiles.standin." + json.dumps(key) + (f".{k}" if k else "") + " = " + json.dumps(v)
        for key, value in table.items()
        for k, v in (value.items() if isinstance(value, dict) else [("", value)])
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    problem = ""
    try:
        load_profile(path=path)
    except UsageError as error:
        problem = str(error)
    assert "\n" not in problem
