"""No planted secret leaves in a support bundle, in any form; what helps does."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import zipfile
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cli import support
from lab.cli.main import main
from lab.core.errors import ExitCode, LabBroken
from lab.support import bundle
from lab.support.secrets import MASK, Scrubber, known_values

PASSWORD = 'pl4nted&"word/é'
GUEST_PASSWORD = "G9uest-Pl4nted_pw"
TOKEN = "t0ken-planted-in-the-environment"
PRODUCT_KEY = "BCDFG-HJKMP-QRTVW-XY234-6789B"
FILE_SECRET = "planted-in-a-file-of-its-own"
UNKNOWN_PASSWORD = "nobody-knows-this-0ne"
RUN = "20261125T223838Z-aaaaaa"


class World:
    """A user's machine with secrets in every corner that the bundle looks into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.run = self.results / RUN
        self.cache = folder / "cache"
        image = self.cache / "images/standin-pae/0123456789abcdef"
        (image / "files").mkdir(parents=True)
        (image / "files/guest.json").write_text(json.dumps({"password_file": "password"}))
        (image / "files/password").write_text(f"{GUEST_PASSWORD}\n")
        (image / "manifest.json").write_text('{"name": "standin-pae"}')
        (image / "build.log").write_text(f"$ sh -c set {GUEST_PASSWORD}\nall built\n")
        host = self.cache / "images/xen417-debian/0123456789abcdef/files"
        host.mkdir(parents=True)
        (host / "host.json").write_text(json.dumps({"private_key": "id_ed25519"}))
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host / "id_ed25519")],
            check=True,
        )
        self.private_key = (host / "id_ed25519").read_text()
        stage = self.cache / "templates/fedcba9876543210"
        stage.mkdir(parents=True)
        (stage / "stage.json").write_text(
            json.dumps({"facts": {"identity": {"vncpasswd": UNKNOWN_PASSWORD, "name": "virtdemo"}}})
        )
        (stage / "serial.log").write_text(f"(XEN) booting\npassword: {UNKNOWN_PASSWORD}\n")
        (stage / "ram").write_bytes(b"\0" * 64)
        self.config = folder / "lab.toml"
        self.config.write_text(
            "[profiles.mine]\nextends = 'standin'\n"
            "winrm.username = 'Tester'\nwinrm.credentials = { env = 'MY_GUEST' }\n"
            f'# password = "{UNKNOWN_PASSWORD}"\n'
        )
        self.secret_file = folder / "key.txt"
        self.secret_file.write_text(f"{FILE_SECRET}\n")
        self._make_run()

    def _make_run(self) -> None:
        basic = base64.b64encode(f"Tester:{PASSWORD}".encode()).decode()
        test = self.run / "tests/test_x"
        test.mkdir(parents=True)
        (self.run / "run.json").write_text(
            json.dumps({"id": RUN, "environment": {"MY_GUEST": PASSWORD}, "verdict": "FAIL"})
        )
        fragment = self.private_key.splitlines()[2]
        (test / "dom0.log").write_text(
            f"the driver crashed at +0x1234\nlogin {PASSWORD}\nquoted {quote(PASSWORD, safe='')}\n"
            f"Authorization: Basic {basic}\ndebug {basic.rstrip('=')}...\n"
            f"{self.private_key}\ncut off here: {fragment}\n"
            f"ProductKey={PRODUCT_KEY} and {PRODUCT_KEY.replace('-', '')}\n"
            f"{FILE_SECRET}\nhttp://admin:{UNKNOWN_PASSWORD}@127.0.0.1:5985/wsman\n"
            f"tool --token {UNKNOWN_PASSWORD} --verbose\n"
        )
        (test / "answer.xml").write_text(f"<a>{escape(PASSWORD)}</a><Password>x1y2</Password>")
        (test / "wide.txt").write_bytes(f"wide {PASSWORD} text".encode("utf-16"))
        with gzip.open(test / "serial.log.gz", "wt") as stream:
            stream.write(f"serial says {TOKEN}\nand goes on\n")
        (test / f"about-{GUEST_PASSWORD}.txt").write_text("its name is the secret\n")
        (test / "screen.png").write_bytes(b"\x89PNG" + PASSWORD.encode())
        (test / "guest.core").write_bytes(PASSWORD.encode() * 3)
        (test / "odd.log").write_bytes(b"\0binary " + GUEST_PASSWORD.encode())
        (self.results / "latest").symlink_to(RUN)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setenv("PVLAB_CACHE", str(made.cache))
    monkeypatch.setenv("PVLAB_RESULTS", str(made.results))
    monkeypatch.setenv("PVLAB_CONFIG", str(made.config))
    monkeypatch.setenv("MY_GUEST", PASSWORD)
    monkeypatch.setenv("SOME_SERVICE_TOKEN", TOKEN)
    monkeypatch.setenv("PVLAB_PRODUCT_KEY", PRODUCT_KEY)
    monkeypatch.setenv("OTHER_SECRET_FILE", str(made.secret_file))
    monkeypatch.setattr(support, "_doctor", lambda *_: {"ok": True, "found": f"set: {TOKEN}"})
    monkeypatch.chdir(tmp_path)
    return made


def planted(world: World) -> list[str]:
    """Every secret, in the forms a program may write it."""
    values = [
        PASSWORD, GUEST_PASSWORD, TOKEN, PRODUCT_KEY, PRODUCT_KEY.replace("-", ""), FILE_SECRET,
        UNKNOWN_PASSWORD, "x1y2", *world.private_key.splitlines()[1:-1],
    ]  # fmt: skip
    forms = []
    for value in values:
        forms += [
            value, quote(value, safe=""), escape(value), json.dumps(value)[1:-1],
            base64.b64encode(value.encode()).decode().rstrip("="),
            base64.b64encode(f"Tester:{value}".encode()).decode().rstrip("="),
            base64.b64encode(f"Administrator:{value}".encode()).decode().rstrip("="),
        ]  # fmt: skip
    return forms


def opened(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_no_planted_secret_is_in_it(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    target = world.folder / "out.zip"
    assert main(["support-bundle", "-o", str(target)]) == ExitCode.PASS
    files = opened(target)
    said = capsys.readouterr()
    whole = "\n".join([*files, *files.values(), said.out, said.err])
    for secret in planted(world):
        assert secret not in whole, secret
        assert secret.encode("utf-16-le") not in target.read_bytes()


def test_what_helps_is_in_it(world: World) -> None:
    target = world.folder / "out.zip"
    assert main(["support-bundle", "-o", str(target)]) == ExitCode.PASS
    files = opened(target)
    log = files[f"run/{RUN}/tests/test_x/dom0.log"]
    assert "the driver crashed at +0x1234" in log
    assert "127.0.0.1:5985/wsman" in log
    assert "--verbose" in log
    assert json.loads(files[f"run/{RUN}/run.json"])["verdict"] == "FAIL"
    assert "and goes on" in files[f"run/{RUN}/tests/test_x/serial.log"]
    assert files[f"run/{RUN}/tests/test_x/wide.txt"] == f"wide {MASK} text"
    assert "(XEN) booting" in files["bakes/fedcba9876543210/serial.log"]
    assert '"name": "virtdemo"' in files["bakes/fedcba9876543210/stage.json"]
    assert "all built" in files["images/standin-pae/0123456789abcdef/build.log"]
    assert "credentials = { env = 'MY_GUEST' }" in files["lab.toml"]
    assert json.loads(files["versions.json"])["pvlab"]
    assert json.loads(files["doctor.json"])["ok"] is True
    manifest = json.loads(files["manifest.json"])
    left = {Path(name).name for name in manifest["left_out"]}
    assert left == {"screen.png", "guest.core", "odd.log"}
    assert set(manifest["files"]) == set(files) - {"manifest.json"}


def test_json_and_another_run(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["support-bundle", RUN, "-o", "out.zip", "--json"]) == ExitCode.PASS
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == "out.zip"
    assert told["left_out"] == 3
    assert main(["support-bundle", "nonsense"]) == ExitCode.USAGE
    assert "nonsense is no run" in capsys.readouterr().err


def test_no_run_yet(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVLAB_RESULTS", str(world.folder / "none"))
    assert main(["support-bundle", "-o", "out.zip"]) == ExitCode.PASS
    assert not [name for name in opened(Path("out.zip")) if name.startswith("run/")]


def test_a_secret_that_was_missed_stops_it(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search at the end does not trust what came before."""
    monkeypatch.setattr(Scrubber, "clean", lambda self, text: text)
    assert main(["support-bundle", "-o", "out.zip"]) == ExitCode.LAB_BROKEN
    assert "still holds" in capsys.readouterr().err
    assert list(world.folder.glob("*.zip")) == []
    assert list(world.folder.glob(".*.tmp")) == []


@pytest.mark.parametrize("secret", [GUEST_PASSWORD, f"password = '{UNKNOWN_PASSWORD}'"])
def test_the_search_at_the_end(secret: str) -> None:
    scrubber = Scrubber([GUEST_PASSWORD])
    for data in (secret.encode(), secret.encode("utf-16-le"), b"x" + secret.encode("utf-16-le")):
        assert scrubber.found(b"before " + data + b" after") or scrubber.found(data)
    assert scrubber.found(b"nothing of the kind") == ""


def test_a_key_that_cannot_be_read_stops_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **how: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(LabBroken, match="must not get into the bundle"):
        known_values(world.cache / "images", ())


@pytest.mark.parametrize(
    "text",
    [
        "winrm allows Basic authentication over HTTP",
        'credentials = "image"',
        'credentials = { env = "NAME" }',
        'password_file": "password"',
        "the guest's password is expected in the environment variable X, which is not set",
        "passed 12 tests, token count 3",
        "key 0123456789abcdef of image standin-pae",
        "secrets: none",
        "{00000000-0000-0000-0000-000000000000} is a GUID",
        "d41d8cd98f00b204e9800998ecf8427e is a hash",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Scrubber([]).clean(text) == text


@given(st.text(max_size=300))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    scrubber = Scrubber(["planted"])
    once = scrubber.clean(text)
    assert scrubber.clean(once) == once
    assert "planted" not in once


SHAPES = st.sampled_from(
    [
        "password=",
        'password: "',
        "(vncpasswd ",
        "<Password>",
        "--token ",
        "://a:",
        "Basic ",
        "-----BEGIN X PRIVATE KEY-----",
    ]
)


@given(st.lists(st.tuples(SHAPES, st.text("aB3=+/'\"<>() \n[]", max_size=20)), max_size=6))
def test_what_was_cleaned_passes_the_search(parts: list[tuple[str, str]]) -> None:
    scrubber = Scrubber([])
    text = "".join(shape + value for shape, value in parts)
    once = scrubber.clean(text)
    assert scrubber.clean(once) == once
    assert scrubber.found(once.encode()) == ""


def test_texts_that_many_patterns_begin_in() -> None:
    """An expression that went back and forth in them would never end."""
    text = "a" * 20_000 + "passwor" * 1_000 + "-" * 5_000 + "://" * 1_000 + "-----BEGIN " * 500
    assert Scrubber(["planted"]).clean(text) == text


def test_long_logs_keep_their_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "HEAD_BYTES", 100)
    monkeypatch.setattr(bundle, "TAIL_BYTES", 100)
    lines = [f"line {number} {GUEST_PASSWORD}" for number in range(100)]
    (tmp_path / "x.log").write_text("\n".join(lines))
    with gzip.open(tmp_path / "y.log.gz", "wt") as stream:
        stream.write("\n".join(lines))
    made = bundle.Bundle(Scrubber([GUEST_PASSWORD]))
    for name in ("x.log", "y.log.gz"):
        made.add_file(tmp_path / name, name)
    assert made.files["x.log"] == made.files["y.log"]
    text = made.files["x.log"].decode()
    assert text.startswith(f"line 0 {MASK}\n")
    assert text.endswith(f"line 99 {MASK}")
    assert "[... left out ...]" in text
    assert GUEST_PASSWORD[:6] not in text
