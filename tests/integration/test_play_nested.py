"""An installation as an HVM domain of the nested host, with play-setup in setup's part."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from lab.core.deadline import Deadline
from lab.images.store import Store
from lab.install.build import nested_host
from lab.install.pipeline import Hardware, Installation, Sources
from lab.install.settings import InstallSettings
from lab.install.watch import PICTURE, TRANSCRIPT, InstallFailed
from lab.qemu.emulator import system_emulator


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    disc = Store().ensure("play-setup").path / "play-setup.iso"
    emulator = system_emulator()
    assert emulator is not None
    folder = tmp_path / "work"
    folder.mkdir()
    # A step that fails once, one that ends with a blue screen.
    orders = b"settings fail 1\r\ndevcon blue 9\r\n"
    return Installation(
        "play-setup",
        InstallSettings(way="domain", memory_mib=256, disk_gib=4),
        Sources(disc, {}, SecretStr("BCDFG-HJKMP-QRTVW-XY234-67892"), SecretStr("Geheim1234")),
        Hardware(emulator, "tcg", "qemu64", patience=1.0),
        folder,
        say=print,
        extra={"PLAY.TXT": orders},
        look_every=5.0,
    )


def test_a_domain_is_installed_recovers_and_fails_with_a_picture(
    installation: Installation, tmp_path: Path
) -> None:
    host = nested_host(InstallSettings(way="domain", memory_mib=256))
    with pytest.raises(InstallFailed) as caught, installation.run_nested(host, Deadline(1200)):
        pass
    assert caught.value.step.name == "devcon"
    assert caught.value.cause == "a blue screen: 0x0000000A IRQL_NOT_LESS_OR_EQUAL"
    picture = tmp_path / "work" / PICTURE
    assert picture.read_bytes().startswith(b"\x89PNG")
    transcript = (tmp_path / "work" / TRANSCRIPT).read_text()
    assert "settings: it failed: exit status 1603" in transcript
    # Through two restarts of the domain, GUI mode's and one of the first boots'.
    assert "@pvlab 1 gui-mode reboot" in transcript
    assert "@pvlab 1 winrm reboot" in transcript
    assert "@pvlab 1 winrm-config ok" in transcript
    assert not (tmp_path / "work" / "floppy.img").exists()
