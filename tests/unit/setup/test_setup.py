from __future__ import annotations

from pathlib import Path

import pytest

from lab.cli import setup
from lab.cli.setup import HostPackage
from lab.core.errors import LabBroken

PACKAGES = [HostPackage("mmdebstrap", "x"), HostPackage("qemu-utils", "y")]
TEST_PACKAGES = [HostPackage("postgresql", "z")]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A machine that lacks both packages; what was run ends up in ``runs``."""
    state: dict[str, object] = {"present": set(), "runs": [], "code": 0, "installs": True}

    def playbook(argv: list[str], options: list[str]) -> int:
        state["runs"].append((argv, options))  # type: ignore[attr-defined]
        if state["installs"]:
            state["present"] = {package.name for package in [*PACKAGES, *TEST_PACKAGES]}
        return int(str(state["code"]))

    monkeypatch.setattr(
        setup, "host_packages", lambda *, tests: [*PACKAGES, *(TEST_PACKAGES if tests else [])]
    )
    monkeypatch.setattr(setup, "installed", lambda names: state["present"])
    monkeypatch.setattr(setup, "_run_playbook", playbook)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return state


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ansible-playbook").write_text("")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))


def test_the_list_says_why_for_each_package() -> None:
    packages = setup.host_packages()
    assert {"mmdebstrap", "uidmap", "arch-test", "qemu-system-x86"} <= {p.name for p in packages}
    assert all(package.why for package in packages)
    assert [p.name for p in packages] == sorted({p.name for p in packages})


def test_what_only_tests_need_is_a_list_of_its_own() -> None:
    more = [p for p in setup.host_packages(tests=True) if p not in setup.host_packages()]
    assert "postgresql" in {p.name for p in more}
    assert all(package.why for package in more)


@pytest.mark.usefixtures("environment")
def test_what_only_tests_need_is_installed_when_asked_for(host: dict[str, object]) -> None:
    host["present"] = {"mmdebstrap", "qemu-utils"}
    assert setup.set_up_host() is False
    assert setup.set_up_host(tests=True) is True
    ((argv, _),) = host["runs"]  # type: ignore[misc, attr-defined]
    assert argv[1:3] == ["--extra-vars", "lab_host_tests=true"]


def test_only_installed_counts_as_installed() -> None:
    output = "zstd installed\nmtools config-files\nuidmap not-installed\nlibc6 installed\n\nx\n"
    assert setup.parse_installed(output) == {"zstd", "libc6"}


def test_nothing_missing_starts_and_says_nothing(
    host: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    host["present"] = {"mmdebstrap", "qemu-utils"}
    assert setup.set_up_host() is False
    assert host["runs"] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("environment")
def test_root_runs_the_playbook(host: dict[str, object]) -> None:
    assert setup.set_up_host() is True
    ((argv, options),) = host["runs"]  # type: ignore[misc, attr-defined]
    assert argv[-1].endswith("playbooks/lab-host.yml")
    assert options == []


def test_without_root_or_sudo_the_exact_line_is_printed(
    host: dict[str, object], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabBroken, match="needs root: mmdebstrap, qemu-utils"):
        setup.set_up_host()
    assert capfd.readouterr().out == (
        "apt-get update && apt-get install --yes --no-install-recommends mmdebstrap qemu-utils\n"
    )
    assert host["runs"] == []


def test_without_ansible_the_exact_line_is_printed(
    host: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(LabBroken, match="ansible-core is not installed"):
        setup.set_up_host()
    assert capfd.readouterr().out.startswith("apt-get update && apt-get install")


@pytest.mark.usefixtures("environment")
def test_a_playbook_that_fails_or_lies_is_told(host: dict[str, object]) -> None:
    host["installs"] = False
    with pytest.raises(LabBroken, match=r"exited 0\); still missing: mmdebstrap, qemu-utils"):
        setup.set_up_host()
    host["code"] = 2
    with pytest.raises(LabBroken, match="exited 2"):
        setup.set_up_host()


@pytest.mark.parametrize(
    ("uid", "sudo", "passwordless", "terminal", "options"),
    [
        (0, None, False, False, []),
        (1000, "/usr/bin/sudo", True, False, []),
        (1000, "/usr/bin/sudo", False, True, ["--ask-become-pass"]),
    ],
)
def test_ways_to_become_root(
    uid: int, sudo: str | None, passwordless: bool, terminal: bool, options: list[str]
) -> None:
    assert options == setup.become_options(
        uid=uid, sudo=sudo, passwordless=passwordless, terminal=terminal
    )


@pytest.mark.parametrize(("sudo", "terminal"), [(None, True), ("/usr/bin/sudo", False)])
def test_no_way_to_become_root(sudo: str | None, terminal: bool) -> None:
    with pytest.raises(PermissionError):
        setup.become_options(uid=1000, sudo=sudo, passwordless=False, terminal=terminal)


def test_dpkg_query_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabBroken, match="dpkg-query cannot be run"):
        setup.installed(["zstd"])
