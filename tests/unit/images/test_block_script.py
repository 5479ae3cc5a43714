"""dom0's block script for what is usual, run by a shell over tools that answer as dom0's do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.core.paths import repo_root

SCRIPT = repo_root() / "images/xen417-debian/root/etc/xen/scripts/block-usual"
PATH = "backend/vbd/2/5632"

TOOLS = {
    "xenstore-ls": "cat {folder}/store",
    "xenstore-read": 'line=$(grep "^$1 = " {folder}/store) || exit 1\n'
    'line=${{line#* = \\"}}; printf \'%s\\n\' "${{line%\\"}}"',
    "xenstore-write": "printf '%s\\n' \"$@\" > {folder}/written",
    "flock": '[ "$*" = "-x 9" ]',
    # readlink is the real one; numbers are of the fake devices' own files.
    "busybox": 'case "$1" in\n  readlink) readlink -f "$3" ;;\n'
    "  cat) cat {folder}/mounts ;;\n"
    '  stat) shift 4; for one in "$@"; do cat "$one"; done ;;\nesac',
}


class Dom0:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, body in TOOLS.items():
            self.put(name, f"#!/bin/sh\n{body.format(folder=folder)}\n")
        self.put("block.xen", f'#!/bin/sh\necho "$@" > {folder}/own\nexit 7\n')
        script = SCRIPT.read_text().replace("/run/", f"{folder}/run/")
        # Files stand for block devices here.
        self.put("block", script.replace("-b ", "-e ").replace("/dev/*)", f"{folder}/dev/*)"))
        (folder / "mounts").touch()
        (folder / "dev").mkdir()
        self.device("vg00-a", "fd:3")
        (folder / "dev/a").symlink_to("vg00-a")
        self.store(params=str(folder / "dev/a"), mode="w", state="2")

    def put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def device(self, name: str, number: str) -> str:
        (self.folder / "dev" / name).write_text(f"{number}\n")
        return str(self.folder / "dev" / name)

    def store(self, *others: str, **nodes: str) -> None:
        own = [f'{PATH}/{name} = "{value}"' for name, value in nodes.items()]
        (self.folder / "store").write_text("\n".join([*others, *own]) + "\n")

    def run(self, command: str = "add") -> int:
        environment = {"PATH": f"{self.folder}:/usr/bin:/bin", "XENBUS_PATH": PATH}
        words = [str(self.folder / "block"), command]
        return subprocess.run(words, env=environment, check=False).returncode

    @property
    def written(self) -> list[str] | None:
        file = self.folder / "written"
        return file.read_text().splitlines() if file.exists() else None

    @property
    def left_to_xen(self) -> bool:
        return (self.folder / "own").exists()


@pytest.fixture
def dom0(tmp_path: Path) -> Dom0:
    return Dom0(tmp_path)


def test_device_that_nobody_has(dom0: Dom0) -> None:
    (dom0.folder / "mounts").write_text(f"{dom0.device('vda', 'fe:0')} / ext4 rw 0 0\nproc /proc\n")
    dom0.store(
        'backend/vbd/2/768/physical-device = "fe:20"',
        'backend/vbd/2/51712/params = "/dev/other"',
        params=str(dom0.folder / "dev/a"),
        mode="w",
    )
    assert dom0.run() == 0
    assert dom0.written == [
        f"{PATH}/physical-device", "fd:3",
        f"{PATH}/physical-device-path", str(dom0.folder / "dev/vg00-a"),
        f"{PATH}/hotplug-status", "connected",
    ]  # fmt: skip
    assert not dom0.left_to_xen


def test_second_call_does_nothing(dom0: Dom0) -> None:
    dom0.store(**{"params": str(dom0.folder / "dev/a"), "physical-device": "fd:3"})
    assert dom0.run() == 0
    assert dom0.written is None
    assert not dom0.left_to_xen


def test_device_of_another_guest_is_left_to_xen(dom0: Dom0) -> None:
    dom0.store('backend/vbd/7/5632/physical-device = "fd:3"', params=str(dom0.folder / "dev/a"))
    assert dom0.run() == 7
    assert dom0.written is None


def test_mounted_device_is_left_to_xen(dom0: Dom0) -> None:
    (dom0.folder / "mounts").write_text(f"{dom0.device('same', 'fd:3')} /mnt ext4 rw 0 0\n")
    assert dom0.run() == 7
    assert dom0.written is None


@pytest.mark.parametrize("params", ["/no/such/device", ""])
def test_what_is_no_device_is_left_to_xen(dom0: Dom0, params: str) -> None:
    dom0.store(params=params)
    assert dom0.run() == 7
    assert dom0.written is None


def test_nothing_in_the_store_is_left_to_xen(dom0: Dom0) -> None:
    dom0.store()
    assert dom0.run() == 7


def test_remove(dom0: Dom0) -> None:
    assert dom0.run("remove") == 0
    assert not dom0.left_to_xen


@pytest.mark.parametrize("nodes", [{}, {"params": "/no/such/file"}], ids=["gone", "a file"])
def test_other_removals_are_left_to_xen(dom0: Dom0, nodes: dict[str, str]) -> None:
    dom0.store(**nodes)
    assert dom0.run("remove") == 7
    assert (dom0.folder / "own").read_text() == "remove\n"


def test_other_commands_are_left_to_xen(dom0: Dom0) -> None:
    assert dom0.run("online") == 7
