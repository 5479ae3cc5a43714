"""Installations from media to warm state, with the play-setup disc in the part of Windows' own.

Everything is real but Windows: the media store, the answer file on its floppy, the copy of the
disc with the lab's files, the PC, its BIOS, the serial port, the screen, the restarts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from lab.core.deadline import Deadline
from lab.crash.screen import open_picture
from lab.images.store import Store
from lab.install import modern, pipeline
from lab.install.pipeline import Hardware, Installation, Sources
from lab.install.settings import InstallSettings
from lab.install.watch import PICTURE, InstallFailed
from lab.media.kinds import MediaKind
from lab.media.store import MediaStore
from lab.qemu.emulator import system_emulator
from lab.qemu.machine import Machine

KEY = "BCDFG-HJKMP-QRTVW-XY234-67892"
#: Nobody waits as long as for Windows, and a hang is not waited for at all.
SETTINGS = InstallSettings(memory_mib=256, disk_gib=4, patience=0.02)
STEPS = pipeline.steps_of(SETTINGS)


@pytest.fixture(scope="session")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disc, through the media store like any other."""
    media = MediaStore(tmp_path_factory.mktemp("media"))
    built = Store().ensure("play-setup")
    medium, _ = media.add(built.path / "play-setup.iso", kind=MediaKind.PLAY_SETUP)
    return media.content(medium)


@pytest.fixture
def hardware() -> Hardware:
    emulator = system_emulator()
    assert emulator is not None
    return Hardware(emulator, "tcg", "qemu64", patience=1.0)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def install(
    disc: Path, hardware: Hardware, tmp_path: Path, said: list[str]
) -> Callable[..., Installation]:
    def make(
        orders: str = "", settings: InstallSettings = SETTINGS, **more: object
    ) -> Installation:
        folder = tmp_path / "work"
        folder.mkdir()
        return Installation(
            "play-setup",
            settings,
            Sources(disc, {}, SecretStr(KEY), SecretStr("Geheim1234567890abcd")),
            hardware,
            folder,
            say=said.append,
            extra={"PLAY.TXT": orders.encode()} if orders else {},
            look_every=1.0,
            **more,  # type: ignore[arg-type]
        )

    return make


def late() -> Deadline:
    return Deadline(240)


def test_from_media_to_warm_state_unattended(
    install: Callable[..., Installation], said: list[str], tmp_path: Path
) -> None:
    installation = install("winrm noise 9\r\n", keep_ram=True)
    with installation.run(late()) as (machine, watched):
        assert [step.name for step in watched.steps] == [step.name for step in STEPS]
        assert {step.attempts for step in watched.steps} == {1}
        # GUI mode's and two of the first boots'; text mode's is not reported.
        assert (watched.restarts, watched.resets) == (3, 0)
        warm = installation.freeze(machine, late())
    folder = tmp_path / "clone"
    folder.mkdir()
    with Machine(warm.cloned("clone", warm.ram_file), folder) as clone:
        clone.start_from(installation.state, late())
        with clone.console() as console:
            console.expect(r"@pvlab 1 alive note \d+\r\n", timeout=60)
    assert any("winrm: restarts" in line for line in said)


def test_a_step_that_hangs_and_one_that_fails_are_recovered(
    install: Callable[..., Installation], said: list[str]
) -> None:
    orders = "winrm hang 1\r\ndevcon fail 1\r\n"
    with install(orders, SETTINGS.model_copy(update={"patience": 0.005})).run(late()) as (
        _,
        watched,
    ):
        found = {step.name: step for step in watched.steps}
    assert watched.resets == 2
    assert found["winrm"].attempts == 2
    assert found["winrm"].troubles[0].startswith("nothing came for")
    assert found["devcon"].troubles == ["it failed: exit status 1603"]
    assert found["dbgview"].attempts == 1
    assert "devcon: it failed: exit status 1603; reset, attempt 2" in said


def test_a_blue_screen_ends_with_cause_and_picture(
    install: Callable[..., Installation], tmp_path: Path
) -> None:
    with pytest.raises(InstallFailed) as caught, install("winrm blue 9\r\n").run(late()):
        pass
    assert caught.value.step.name == "winrm"
    assert caught.value.cause == "a blue screen: 0x0000000A IRQL_NOT_LESS_OR_EQUAL"
    picture = tmp_path / "work" / PICTURE
    assert caught.value.picture == picture
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert open_picture(picture).size == (720, 400)
    # One line for people, which says where the picture is.
    assert str(picture) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "work" / pipeline.FLOPPY).exists()


def test_a_key_that_is_refused(install: Callable[..., Installation]) -> None:
    with pytest.raises(InstallFailed, match=r"gui-mode .*: the product key is refused") as caught:  # noqa: SIM117
        with install("gui-mode key 9\r\n").run(late()):
            pass
    assert KEY not in str(caught.value)


def test_no_hard_disk(
    install: Callable[..., Installation], monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = install()
    whole = installation.spec
    monkeypatch.setattr(installation, "spec", lambda floppy: replace(whole(floppy), disk=None))
    with pytest.raises(InstallFailed, match="setup finds no hard disk"), installation.run(late()):
        pass


def test_without_the_answer_file_it_asks_for_the_licence(
    install: Callable[..., Installation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "ANSWER_FILE", "OTHER.SIF")
    with pytest.raises(InstallFailed, match="setup asks for the licence"):  # noqa: SIM117
        with install().run(late()):
            pass


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"driver_signing": "Warn"}, "setup refuses to go on"),
        ({"computer_name": "X" * 15 + "Y"}, "setup refuses to go on"),
    ],
)
def test_answers_that_are_wrong_are_noticed(
    install: Callable[..., Installation],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    says: str,
    tmp_path: Path,
) -> None:
    right = pipeline.answers
    monkeypatch.setattr(pipeline, "answers", lambda *given: right(*given).model_copy(update=change))
    with pytest.raises(InstallFailed, match=says), install().run(late()):
        pass
    assert (tmp_path / "work" / PICTURE).exists()


def test_a_step_that_never_comes_right_says_what_was_heard(
    install: Callable[..., Installation],
) -> None:
    with pytest.raises(InstallFailed) as caught, install("devcon fail 9\r\n").run(late()):
        pass
    assert caught.value.cause == "it failed: exit status 1603"
    assert caught.value.step.name == "devcon"


def test_a_guest_that_restarts_by_itself_goes_on(install: Callable[..., Installation]) -> None:
    with install("dbgview restart 2\r\n").run(late()) as (_, watched):
        found = {step.name: step.attempts for step in watched.steps}
    assert found["dbgview"] == 3
    assert watched.resets == 0


def test_the_steps_of_a_modern_windows(
    install: Callable[..., Installation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """play-setup walks whatever steps are on the disc: protocol, restarts and order of those
    of a Windows of today. Its answer file is not read by it."""
    port = pipeline.PROGRESS_PORTS["qemu"]
    monkeypatch.setattr(pipeline, "scripts", lambda *_: modern.scripts(SETTINGS, port))
    steps = (*pipeline.SETUP_STEPS, *modern.MODERN_STEPS)
    with install("network fail 1\r\n", steps=steps).run(late()) as (_, watched):
        assert [step.name for step in watched.steps] == [step.name for step in steps]
    assert (watched.restarts, watched.resets) == (2, 1)
