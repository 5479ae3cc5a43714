"""Profiles: defaults, honesty of labels, sizes, deadlines."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from lab.config.profile import Deadlines, EnvPassword, Memory, Profile, Winrm
from lab.core.errors import UsageError


def test_default_profile_is_the_standin() -> None:
    profile = Profile()
    assert (profile.name, profile.guest_image, profile.toolstack) == (
        "standin",
        "standin-pae",
        "xl",
    )
    assert profile.guest_label.startswith("stand-in")
    assert profile.winrm.credentials == "image"


@pytest.mark.parametrize("model", [Profile, Winrm, Memory, Deadlines, EnvPassword])
def test_every_field_is_described(model: type[BaseModel]) -> None:
    undescribed = [n for n, f in model.model_fields.items() if not f.description]
    assert undescribed == []


@pytest.mark.parametrize("label", ["Windows Server 2003", "guest", "stand-in for WINDOWS"])
def test_standin_is_never_called_windows(label: str) -> None:
    with pytest.raises(ValidationError, match="stand-in"):
        Profile(guest_label=label)


def test_label_is_one_line() -> None:
    with pytest.raises(ValidationError, match="one line"):
        Profile(guest_label="stand-in\nWindows")


def test_memory_must_fit() -> None:
    with pytest.raises(ValidationError, match="host_mib = 1024 is too small"):
        Memory(host_mib=1024, dom0_mib=768, guest_mib=192)
    assert Memory(host_mib=1088, dom0_mib=768, guest_mib=192).host_mib == 1088


def test_windows_needs_256_mib() -> None:
    windows = {"guest_kind": "windows", "guest_label": "Server 2003"}
    with pytest.raises(ValidationError, match="at least 256 MiB"):
        Profile.model_validate(windows)
    assert Profile.model_validate({**windows, "memory": {"guest_mib": 256}}).memory.guest_mib == 256


@pytest.mark.parametrize("value", [True, "2048", 0, -1, 2.5])
def test_memory_is_a_positive_integer(value: object) -> None:
    with pytest.raises(ValidationError):
        Memory.model_validate({"host_mib": value})


@pytest.mark.parametrize("value", [True, "20", 0, -1.0, float("inf"), float("nan")])
def test_deadline_is_a_positive_number(value: object) -> None:
    with pytest.raises(ValidationError):
        Deadlines.model_validate({"attach": value})


def test_deadlines_scale_under_emulation_only_and_once() -> None:
    table = Deadlines(attach=10, tcg_factor=6.0)
    assert table.under("kvm").attach == 10
    emulated = table.under("tcg-hvm")
    assert emulated.attach == 60
    assert emulated.under("tcg-hvm") == emulated
    assert table.under("tcg-pv").boot == table.boot * 6


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        (
            "[   61.2] Kernel panic - not syncing: Fatal exception in interrupt",
            "Kernel panic - not syncing",
        ),
        ("[    9.1] Oops: 0002 [#1] PREEMPT SMP PTI", r"Oops: [0-9a-f]{4} \[#\d+\]"),
        ("[    9.1] BUG: unable to handle page fault for address: f8", "BUG: unable to handle "),
        ("xen-blkfront: blkfront: xvda: flush diskcache: enabled", None),
        ("Oops: I spilled my tea", None),
    ],
)
def test_default_crash_patterns(line: str, pattern: str | None) -> None:
    assert Profile().crashed_in(line) == pattern


def test_bad_crash_pattern() -> None:
    with pytest.raises(ValidationError, match="not a regular expression"):
        Profile(crash_patterns=("STOP (",))


def test_env_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUEST_PW", "not-a-real-one")
    assert EnvPassword(env="GUEST_PW").read() == "not-a-real-one"
    monkeypatch.setenv("GUEST_PW", "")
    with pytest.raises(UsageError, match="GUEST_PW"):
        EnvPassword(env="GUEST_PW").read()
