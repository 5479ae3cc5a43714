"""Product key and password are planted, and looked for in everything an installation leaves."""

from __future__ import annotations

import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from lab.cli import image
from lab.cli.main import main
from lab.core.deadline import Deadline
from lab.core.paths import repo_root
from lab.images.store import Store
from lab.install import build, secret
from lab.install.pipeline import BLANK, RAM, Installation, Sources
from lab.install.settings import InstallSettings
from lab.qemu.machine import Machine

KEY = "QRTVW-XY234-67892-BCDFG-HJKMP"
PASSWORD = "Geheim1234567890abcd"


class Watch:
    """Looks at the command lines and environments of all processes, again and again."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.looks = 0
        self.found: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.1):
            self.looks += 1
            for folder in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        data = (folder / name).read_bytes()
                    except OSError:
                        continue
                    text = data.decode(errors="replace")
                    if name == "cmdline":
                        self.seen.add(Path(text.split("\0")[0]).name)
                    if leaks(data):
                        self.found.append(f"{name}: {text[:200]}")


def leaks(data: bytes) -> bool:
    """Whether one of the secrets is in it, in any of the forms a program may write it."""
    forms = [
        form for word in (KEY, KEY.replace("-", ""), PASSWORD) for form in (word, word.lower())
    ]
    encoded = [form.encode(code) for form in forms for code in ("ascii", "utf-16-le")]
    return any(form in data for form in encoded)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CACHE", "RESULTS", "RUNTIME"):
        monkeypatch.setenv(f"PVLAB_{name}", str(tmp_path / name.lower()))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv(secret.KEY_VARIABLE, KEY)
    monkeypatch.setattr(secret, "_taken", {})
    monkeypatch.setattr(build, "new_password", lambda: SecretStr(PASSWORD))
    recipes = tmp_path / "recipes"
    for name in ("play-setup", "play-w2k3"):
        shutil.copytree(repo_root() / "images" / name, recipes / name)
    monkeypatch.setattr(image, "Store", lambda: Store(recipes))
    assert main(["image", "build", "play-setup"]) == 0
    disc = Store(recipes).ensure("play-setup").path / "play-setup.iso"
    assert main(["media", "add", str(disc)]) == 0
    return tmp_path


def leaking_files(world: Path) -> list[str]:
    looked = 0
    found = []
    for path in world.rglob("*"):
        if path.is_file() and not path.is_symlink():
            looked += 1
            if leaks(path.read_bytes()):
                found.append(str(path.relative_to(world)))
    assert looked > 10
    return found


def orders(world: Path, text: str) -> None:
    (world / "recipes/play-w2k3/orders.txt").write_text(text)


def test_the_search_would_find_them(world: Path) -> None:
    (world / "cache" / "a").write_bytes(b"x" + PASSWORD.encode("utf-16-le"))
    assert leaking_files(world) == ["cache/a"]


def test_a_whole_installation_leaks_nothing(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    orders(world, "text-mode leak 9\nwinrm fail 1\n")
    with Watch() as watch:
        assert main(["image", "build", "play-w2k3"]) == 0
    built = Store(world / "recipes").find("play-w2k3")
    assert built is not None
    transcript = (built.path / "install.log").read_text()
    assert transcript.count("@pvlab 1 text-mode note *****") == 2
    assert "winrm: it failed: exit status 1603" in transcript
    assert watch.looks > 3
    assert any(name.startswith("qemu-system") for name in watch.seen)
    assert watch.found == []
    assert leaking_files(world) == []
    said = capfd.readouterr()
    assert not leaks((said.out + said.err).encode())
    assert "ready" in said.err
    first, second = cloned(built.path, world)
    assert second == first + 1


def cloned(files: Path, world: Path) -> tuple[int, int]:
    """Start a clone from an image's warm state; the numbers in its next two signs of life.

    The first may be 0: the state may have been taken before there was one.
    """
    hardware = replace(build.hardware(), accel="tcg")
    sources = Sources(files, {}, SecretStr(KEY), SecretStr(PASSWORD))
    settings = InstallSettings.load(repo_root() / "images/play-w2k3/install.toml")
    installation = Installation(
        "play-w2k3", settings, sources, hardware, files, say=print, keep_ram=True
    )
    spec = installation.spec(files / BLANK).cloned("clone", files / RAM)
    scratch = world / "clone"
    scratch.mkdir()
    with Machine(spec, scratch) as clone:
        clone.start_from(installation.state, Deadline(120))
        with clone.console() as console:
            numbers = []
            for _ in range(2):
                console.expect(r"@pvlab 1 alive note (\d+)\r\n", timeout=60)
                assert console.match is not None
                numbers.append(int(console.match[1]))
            return numbers[0], numbers[1]


def test_an_installation_that_fails_leaks_nothing(
    world: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    orders(world, "text-mode leak 9\ndbgview blue 9\n")
    with Watch() as watch:
        assert main(["image", "build", "play-w2k3"]) == 3
    said = capfd.readouterr()
    assert "dbgview" in said.err
    assert "a blue screen: 0x0000000A IRQL_NOT_LESS_OR_EQUAL" in said.err
    picture = re.search(r"picture: (\S+\.png)", said.err)
    assert picture is not None
    assert Path(picture[1]).read_bytes().startswith(b"\x89PNG")
    assert Path(picture[1]).with_name("install.log").is_file()
    assert watch.found == []
    assert leaking_files(world) == []
    assert not leaks((said.out + said.err).encode())


def test_exceptions_and_their_causes_leak_nothing(world: Path) -> None:
    orders(world, "text-mode leak 9\ngui-mode fail 9\n")
    with pytest.raises(Exception, match="gui-mode") as caught:
        Store(world / "recipes").ensure("play-w2k3")
    error: BaseException | None = caught.value
    while error is not None:
        assert not leaks(f"{error!r} {error} {vars(error)}".encode())
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("given", [KEY[:-1], KEY.replace("Q", "A"), f"{KEY} {KEY}"])
def test_a_key_of_the_wrong_form_is_not_repeated(
    world: Path, given: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(secret.KEY_VARIABLE, given)
    assert main(["image", "build", "play-w2k3"]) == 2
    said = capfd.readouterr().err
    assert "PVLAB_PRODUCT_KEY holds no product key" in said
    assert given not in said
    assert leaking_files(world) == []
