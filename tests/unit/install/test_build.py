"""What a build leaves, with an installation that is pretended; and the nested host's bench."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from PIL import Image
from pydantic import SecretStr

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken, UsageError
from lab.core.paths import repo_root
from lab.images.boot import read_guest
from lab.images.store import Store
from lab.install import build, nested, secret
from lab.install.nested import DomainBench, domain_config
from lab.install.pipeline import PROGRESS_PORTS
from lab.install.selfcheck import Answer, checks_2003
from lab.install.settings import InstallSettings
from lab.install.steps import Step
from lab.install.watch import PICTURE, TRANSCRIPT, InstallFailed, StepRecord, Watched
from lab.media import store as media_module
from lab.media.kinds import Identity, MediaKind
from lab.media.store import MediaStore
from lab.qemu.emulator import Emulator
from lab.xen.domain import Domain

KEY = "BCDFG-HJKMP-QRTVW-XY234-67892"
PASSWORD = "Geheim1234567890abcd"
KINDS = ("w2k3-sp2-i386", "kb968930", "dotnet20", "dbgview", "devcon")


class PretendedInstallation:
    """Leaves what an installation would."""

    failure: Exception | None = None
    made: ClassVar[list[PretendedInstallation]] = []

    def __init__(
        self, what: str, settings: InstallSettings, sources: Any, *more: Any, **named: Any
    ):
        self.settings, self.sources = settings, sources
        self.disk = more[1] / "guest.qcow2"
        self.evidence = named["evidence"]
        self.done: list[str] = []
        self.made.append(self)

    @contextlib.contextmanager
    def run(self, deadline: Deadline) -> Iterator[tuple[Any, Watched]]:
        (self.evidence / TRANSCRIPT).write_text("@pvlab 1 ready ok\n")
        if self.failure:
            raise self.failure
        self.disk.write_bytes(b"disk")
        self.done.append("installed")
        yield SimpleNamespace(), Watched((StepRecord("ready", 1.5, 1),), 3, 0)

    @contextlib.contextmanager
    def run_nested(self, host: object, deadline: Deadline) -> Iterator[tuple[Any, Any, Watched]]:
        bench = SimpleNamespace(what_it_is=lambda _: "")
        with self.run(deadline) as (machine, watched):
            self.done.append(f"nested {host}")
            yield machine, bench, watched

    def check(self, machine: object, checks: Any, deadline: Deadline) -> tuple[Answer, ...]:
        self.done.append("checked")
        return tuple(Answer(check, True, "as wanted") for check in checks)

    def shut_down(self, machine: object, deadline: Deadline, *, domain: Any = None) -> None:
        self.done.append("off" if domain is None else f"off {domain()}")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The recipe, with media that are known by their hash, and no machine."""
    monkeypatch.setenv("PVLAB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv(secret.KEY_VARIABLE, KEY)
    monkeypatch.setattr(secret, "_taken", {})
    media = MediaStore(tmp_path / "media")
    for kind in KINDS:
        path = tmp_path / kind
        path.write_bytes(kind.encode())
        known = {MediaStore._hash(path): Identity(kind=MediaKind(kind), title=kind)}
        monkeypatch.setattr(media_module, "KNOWN_HASHES", known)
        media.add(path)
    recipes = tmp_path / "recipes"
    shutil.copytree(repo_root() / "images/w2k3-sp2-pae", recipes / "w2k3-sp2-pae")
    recipe = recipes / "w2k3-sp2-pae/recipe.toml"
    recipe.write_text(recipe.read_text().replace("disk_mib = 24000", "disk_mib = 1"))
    monkeypatch.setattr(PretendedInstallation, "made", [])
    monkeypatch.setattr(PretendedInstallation, "failure", None)
    monkeypatch.setattr(build, "Installation", PretendedInstallation)
    monkeypatch.setattr(build, "new_password", lambda: SecretStr(PASSWORD))
    monkeypatch.setattr(
        build,
        "hardware",
        lambda: build.Hardware(Emulator(("q",), "7.2", "system"), "tcg", "qemu64", 6.0),
    )
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "qemu-img").write_text('#!/bin/sh\ncp "$4" "$5"\n')
    (tools / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    return Store(recipes, tmp_path / "store", media)


def test_what_is_in_the_image(world: Store, tmp_path: Path) -> None:
    built = world.ensure("w2k3-sp2-pae")
    assert PretendedInstallation.made[0].done == ["installed", "checked", "off"]
    assert {path.name for path in built.path.iterdir()} == {
        "guest.img", "guest.json", "domain.cfg.j2", "password", "install.log",
    }  # fmt: skip
    guest = read_guest(built.path)
    assert (guest.username, guest.password_file, guest.c_partition) == (
        "Administrator", "password", 1,
    )  # fmt: skip
    assert (built.path / "password").read_text() == PASSWORD
    assert (built.path / "password").stat().st_mode & 0o777 == 0o600
    assert "version: as wanted" in built.manifest.notes
    assert "ready: 1.5 s, 1 attempts" in built.manifest.notes
    # Nothing is left beside the image, and nothing but the password file has a secret.
    assert list((tmp_path / "results").iterdir()) == []
    for path in built.folder.rglob("*"):
        if path.is_file() and path.name != "password":
            assert KEY.encode() not in path.read_bytes()
            assert PASSWORD.encode() not in path.read_bytes()


def test_the_media_go_where_they_belong(world: Store) -> None:
    world.ensure("w2k3-sp2-pae")
    sources = PretendedInstallation.made[0].sources
    assert sources.disc.read_bytes() == b"w2k3-sp2-i386"
    assert {kind: path.read_bytes().decode() for kind, path in sources.programs.items()} == {
        kind: kind for kind in KINDS[1:]
    }
    assert sources.product_key.get_secret_value() == KEY


def test_neither_key_nor_password_is_in_the_image_s_key(
    world: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.key("w2k3-sp2-pae")
    monkeypatch.setenv(secret.KEY_VARIABLE, KEY[::-1])
    monkeypatch.setattr(build, "new_password", lambda: SecretStr("Another1"))
    assert world.key("w2k3-sp2-pae") == before


def test_a_domain_of_the_nested_host(world: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = world.recipe("w2k3-sp2-pae").folder / "install.toml"
    settings.write_text(settings.read_text().replace('way = "qemu"', 'way = "domain"'))
    host = SimpleNamespace(image=SimpleNamespace(key="abc"), __str__=lambda: "host")
    monkeypatch.setattr(build, "nested_host", lambda _: host)
    built = world.ensure("w2k3-sp2-pae")
    assert PretendedInstallation.made[0].done[-1] == "off "
    assert built.manifest.versions["xen417-debian"] == "abc"


def test_a_failure_keeps_transcript_and_picture(
    world: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / PICTURE
    failure = InstallFailed("w2k3", Step("winrm", "WinRM", 1), "it failed", "look", picture)
    monkeypatch.setattr(PretendedInstallation, "failure", failure)
    with pytest.raises(LabBroken, match=rf"winrm \(WinRM\): it failed .*picture: {picture}"):
        world.ensure("w2k3-sp2-pae")
    (kept,) = (tmp_path / "results").iterdir()
    assert kept.name.startswith("install-w2k3-sp2-pae-")
    assert (kept / TRANSCRIPT).read_text() == "@pvlab 1 ready ok\n"


def test_other_failures_say_where_the_transcript_is(
    world: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PretendedInstallation, "failure", LabBroken("QEMU died"))
    with pytest.raises(LabBroken, match=r"QEMU died .*transcript: .*install-w2k3-sp2-pae"):
        world.ensure("w2k3-sp2-pae")
    monkeypatch.setattr(
        PretendedInstallation, "failure", DeadlineExpired("the end", "nothing", 1.0)
    )
    with pytest.raises(LabBroken, match=r"waited 1\.0 s for the end.*transcript: "):
        world.ensure("w2k3-sp2-pae")


def test_without_a_key_nothing_is_left(
    world: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(secret.KEY_VARIABLE)
    with pytest.raises(UsageError, match="no product key for Windows"):
        world.ensure("w2k3-sp2-pae")
    assert not (tmp_path / "results").exists()


class FakeToolstack:
    def __init__(self) -> None:
        self.domains: list[Domain] = []
        self.next = 1
        self.done: list[str] = []

    def find(self, name: str, deadline: Deadline) -> Domain | None:
        return self.domains[-1] if self.domains else None

    def create(self, config: str, deadline: Deadline) -> Domain:
        self.done.append("create")
        self.domains = [Domain(nested.DOMAIN, self.next, 256, 1, "-b----", 1.0)]
        self.next += 1
        return self.domains[0]

    def destroy(self, name: str, deadline: Deadline) -> None:
        self.done.append("destroy")
        self.domains = []


class FakeDom0:
    def __init__(self) -> None:
        self.ran: list[tuple[str, bytes | None]] = []
        self.files: dict[str, bytes] = {}

    def run(
        self, command: str, deadline: Deadline, *, stdin: bytes | None = None, check: bool = False
    ) -> None:
        self.ran.append((command, stdin))

    def put(self, local: Path, remote: str, deadline: Deadline) -> None:
        self.files[remote] = local.read_bytes()


@pytest.fixture
def bench() -> tuple[DomainBench, FakeToolstack, FakeDom0]:
    toolstack, dom0 = FakeToolstack(), FakeDom0()
    machine = SimpleNamespace(why_dead=lambda: "")
    return DomainBench(machine, dom0, toolstack), toolstack, dom0  # type: ignore[arg-type]


Bench = tuple[DomainBench, FakeToolstack, FakeDom0]


class TestDomainBench:
    def test_the_floppy_is_private_in_dom0_and_goes(self, bench: Bench, tmp_path: Path) -> None:
        one, _, dom0 = bench
        (tmp_path / "f").write_bytes(b"floppy")
        one.prepare(tmp_path / "f", 256, Deadline(5))
        assert list(dom0.files.values()) == [b"floppy"]
        (floppy,) = dom0.files
        assert "umask 077" in dom0.ran[0][0]
        assert dom0.ran[1][1] == domain_config(256).encode()
        one.forget_floppy(Deadline(5))
        assert dom0.ran[-1][0] == f"rm -f {floppy}"

    def test_a_domain_that_starts_anew_by_itself_is_counted(self, bench: Bench) -> None:
        one, toolstack, _ = bench
        one.resume(Deadline(5))
        assert one.restarts(Deadline(5)) == 0
        toolstack.create("", Deadline(5))
        assert one.restarts(Deadline(5)) == 1
        one.reset(Deadline(5))
        assert one.restarts(Deadline(5)) == 1
        toolstack.domains = []
        assert one.restarts(Deadline(5)) == 1

    def test_a_reset_ends_what_is_there(self, bench: Bench) -> None:
        one, toolstack, _ = bench
        one.reset(Deadline(5))
        one.reset(Deadline(5))
        assert toolstack.done == ["create", "destroy", "create"]

    def test_off_and_flushed(self, bench: Bench) -> None:
        one, toolstack, dom0 = bench
        one.resume(Deadline(5))
        assert one.what_it_is(Deadline(5)) == "domain install is still -b----"
        toolstack.domains = [Domain(nested.DOMAIN, 1, 256, 1, "---s--", 1.0)]
        assert one.what_it_is(Deadline(5)) == ""
        one.flush(Deadline(5))
        assert toolstack.done[-1] == "destroy"
        assert "blockdev --flushbufs /dev/vdc" in dom0.ran[-1][0]

    def test_pictures(self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        one, _, _ = bench
        with pytest.raises(LabBroken, match="domain install is not there"):
            one.picture(tmp_path / "a.png", Deadline(5))
        one.resume(Deadline(5))
        seen: list[int] = []

        def screen_of(dom0: object, domid: int, deadline: Deadline, **_: object) -> Image.Image:
            seen.append(domid)
            return Image.new("RGB", (4, 4))

        monkeypatch.setattr(nested, "screen_of", screen_of)
        one.picture(tmp_path / "a.png", Deadline(5))
        assert seen == [1]
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_domain_has_disk_cd_and_floppy_for_either_toolstack() -> None:
    values: dict[str, Any] = {}
    exec(domain_config(512), {}, values)  # noqa: S102 - xm itself executes it
    assert values["memory"] == 512
    assert values["boot"] == "cd"
    assert [one.split(",")[1] for one in values["disk"]] == ["hda", "hdc:cdrom"]
    assert values["fda"] in values["device_model_args_hvm"][1]
    assert values["vnc"] == 1


def test_a_xen_3_domain_has_one_port() -> None:
    assert PROGRESS_PORTS == {"qemu": "COM2", "domain": "COM1"}
    settings = InstallSettings(way="domain")
    assert len(checks_2003(settings)) == 7
    assert json.loads(settings.model_dump_json())["way"] == "domain"
