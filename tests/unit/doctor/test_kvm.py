from __future__ import annotations

from pathlib import Path

import pytest

from lab.qemu.kvm import KvmFacts, kvm_facts, parse_cpuinfo


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "dev").mkdir()
    (tmp_path / "sys/module").mkdir(parents=True)
    return tmp_path


def give(
    root: Path, flags: str, *, device: bool = True, module: str = "", nested: str | None = None
) -> KvmFacts:
    cpu = f"processor\t: 0\nmodel name\t: A  CPU\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\n"
    (root / "proc/cpuinfo").write_text(cpu)
    if device:
        (root / "dev/kvm").write_text("")
    if module:
        (root / "sys/module" / module / "parameters").mkdir(parents=True)
    if nested is not None:
        (root / "sys/module" / module / "parameters/nested").write_text(f"{nested}\n")
    return kvm_facts(root)


@pytest.mark.parametrize(
    ("flags", "module", "nested"), [("svm", "kvm_amd", "1"), ("vmx", "kvm_intel", "Y")]
)
def test_all_there(root: Path, flags: str, module: str, nested: str) -> None:
    facts = give(root, flags, module=module, nested=nested)
    assert facts == KvmFacts("A CPU", flags, False, "usable", (module,), True)
    assert facts.why_not == ""
    assert facts.remedy == ""


def test_the_paravirtual_kind_offers_its_guests_nothing(root: Path) -> None:
    facts = give(root, "hypervisor", module="kvm_pvm")
    assert facts.why_not == (
        "the processor shows neither svm nor vmx (KVM is here through kvm_pvm)"
    )
    assert "outer machine" in facts.remedy


@pytest.mark.parametrize("nested", ["0", "N"])
def test_nested_off(root: Path, nested: str) -> None:
    facts = give(root, "svm", module="kvm_amd", nested=nested)
    assert facts.why_not == "nested virtualisation is off in kvm_amd"
    assert facts.remedy == "load kvm_amd with nested=1"


def test_no_device(root: Path) -> None:
    assert give(root, "svm", device=False).why_not == "/dev/kvm does not exist"


def test_device_of_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    give(root, "svm", module="kvm_amd", nested="1")
    monkeypatch.setattr("os.open", refuse)
    monkeypatch.setattr("os.access", lambda *_: False)
    facts = kvm_facts(root)
    assert facts.device == "denied"
    assert "group" in facts.remedy


def test_nothing_readable_is_no_error(tmp_path: Path) -> None:
    facts = kvm_facts(tmp_path)
    assert facts == KvmFacts("", "", False, "missing", (), None)
    assert "unknown processor" in facts.summary


def test_only_the_first_processor_counts() -> None:
    assert parse_cpuinfo("flags : a\n\nflags : b\n") == {"flags": "a"}
    assert parse_cpuinfo("") == {}
