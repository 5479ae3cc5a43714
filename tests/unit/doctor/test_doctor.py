from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from lab.cli import doctor as module
from lab.cli.doctor import Check, DoctorReport, doctor
from lab.cli.setup import HostPackage
from lab.config.profile import Profile
from lab.core.errors import LabBroken
from lab.images.store import Store
from lab.qemu.emulator import Emulator
from lab.qemu.kvm import KvmFacts

RECIPE = """
name = "{name}"
description = "a test image"
kind = "disk"
[resources]
disk_mib = {disk_mib}
minutes = 2
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for name in ("xen417-debian", "standin-pae"):
        folder = tmp_path / "recipes" / name
        folder.mkdir(parents=True)
        (folder / "recipe.toml").write_text(RECIPE.format(name=name, disk_mib=10))
        (folder / "build.py").write_text("def build(ctx): (ctx.out / 'd').write_text('x')")
    return Store(tmp_path / "recipes", tmp_path / "store")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which everything is fine, without KVM."""
    facts = KvmFacts("CPU", "", True, "usable", ("kvm_pvm",), None)
    monkeypatch.setattr(module, "kvm_facts", lambda: facts)
    monkeypatch.setattr(module, "missing_packages", list)
    monkeypatch.setattr(module, "accelerator_checks", list)
    monkeypatch.setattr(module, "system_emulator", lambda: Emulator(("qemu",), "7.2.0", "system"))
    monkeypatch.setattr(module, "runtime_dir", lambda: Path("/tmp/pvlab-0"))
    monkeypatch.setattr(module, "memory_check", lambda profile: good("memory"))
    monkeypatch.setattr(module, "disk_check", lambda store: good("disk"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PVLAB_MEDIA", str(tmp_path / "media"))


def good(name: str) -> Check:
    return Check(name=name, ok=True, level="required", found="fine")


def find(report: DoctorReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def test_a_machine_without_kvm_can_run(store: Store) -> None:
    report = doctor(Profile(), store)
    assert report.ok
    kvm = find(report, "KVM")
    assert (kvm.ok, kvm.level) == (False, "optional")
    assert "neither svm nor vmx" in kvm.found
    assert "a build takes about 2 min" in find(report, "host image").found


def test_built_and_damaged_images(store: Store) -> None:
    built = store.ensure("standin-pae")
    assert "built" in find(doctor(Profile(), store), "guest image").found
    (built.path / "d").unlink()
    report = doctor(Profile(), store)
    assert not report.ok
    assert find(report, "guest image").remedy == "run: pvlab image build --force standin-pae"


def test_an_image_without_a_recipe(store: Store) -> None:
    report = doctor(Profile(host_image="xen31"), store)
    assert not report.ok
    assert "no recipe of that name" in find(report, "host image").found


def test_missing_packages_name_the_command(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_packages", lambda: [HostPackage("mtools", "x")])
    check = find(doctor(Profile(), store), "host packages")
    assert not check.ok
    assert check.found == "missing: mtools"
    assert "pvlab setup" in check.remedy
    assert "apt-get install" in check.remedy


def test_what_cannot_be_found_out_hides_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[HostPackage]:
        raise LabBroken("dpkg-query cannot be run", hint="the lab needs Debian 12")

    monkeypatch.setattr(module, "missing_packages", fail)
    report = doctor(Profile(), store)
    assert not report.ok
    assert find(report, "host packages").found == "dpkg-query cannot be run"
    assert find(report, "memory").ok


def test_no_emulator(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "system_emulator", lambda: None)
    assert not doctor(Profile(), store).ok


def test_a_windows_profile_needs_media(store: Store, tmp_path: Path) -> None:
    profile = Profile(guest_kind="windows", guest_label="Server 2003", memory={"guest_mib": 512})
    assert not find(doctor(profile, store), "media").ok
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "w2k3.ISO").write_text("")
    assert "w2k3.ISO" in find(doctor(profile, store), "media").found
    assert find(doctor(profile, store), "media").ok


@pytest.mark.parametrize(("kib", "ok"), [(8 << 20, True), (1 << 20, False)])
def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kib: int, ok: bool) -> None:
    monkeypatch.undo()
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:   {kib} kB\n")
    check = module.memory_check(Profile(), tmp_path / "meminfo")
    assert check.ok is ok
    assert f"{kib // 1024} MiB available" in check.found


def test_memory_that_is_not_told(tmp_path: Path) -> None:
    assert module.parse_available("MemTotal: 1 kB\nMemAvailable:\n") == 0


def test_disk_counts_the_images_to_build(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    needed = 20 + module.RUN_DISK_MIB
    assert module.disk_check(store, lambda place: needed << 20).ok
    short = module.disk_check(store, lambda place: (needed << 20) - 1)
    assert not short.ok
    assert "2 images to build" in short.found


def test_a_runtime_folder_must_be_short_and_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not module.runtime_check(tmp_path / ("x" * 100)).ok
    assert module.runtime_check(Path("/tmp/pvlab-0")).ok
    # Root may write everywhere, so the system's answer is replaced.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "cannot be written" in module.runtime_check(Path("/tmp/pvlab-0")).found


def test_the_report_for_people_keeps_brackets(store: Store) -> None:
    report = DoctorReport(
        profile="p",
        ok=False,
        checks=(Check(name="a", ok=False, level="optional", found="[x]", remedy="do [y]"),),
    )
    out = io.StringIO()
    module.show(report, Console(file=out, width=80))
    assert "[x]" in out.getvalue()
    assert "do [y]" in out.getvalue()
    assert "profile p: cannot run here" in out.getvalue()
