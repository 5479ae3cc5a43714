"""Scenarios that travel: bundles, and what of them is refused."""

from __future__ import annotations

import json
import zipfile
from types import SimpleNamespace

import pytest

from lab.core.errors import UsageError
from lab.crash.facts import CrashFact, Source
from lab.scenario.bundle import is_bundle, is_scenario, load_any, write_bundle
from lab.scenario.model import Attach, Detach, Scenario
from lab.scenario.text import dumps

SCENARIO = Scenario(steps=(Attach(disk="hdc", size=2048), Detach(disk="hdc"))).described(
    title="detach", outcome="crash", origin="a mail"
)
FACT = CrashFact("bugcheck", code=0xD1, module="xenvbd", sources={"code": Source("mail", "m", "")})


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    (folder / "i386").mkdir(parents=True)
    (folder / "xenvbd.inf").write_text("inf")
    (folder / "i386" / "xenvbd.sys").write_bytes(b"MZ")
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return SimpleNamespace(
        folder=folder, files=files, name="xenvbd", version="0.0.3", identity="ab" * 32
    )


def test_what_is_packed_is_unpacked(tmp_path, package):
    file = tmp_path / "repro.zip"
    write_bundle(file, SCENARIO, package=package, facts=(FACT,))
    assert is_bundle(file)
    loaded = load_any(file, tmp_path)
    assert loaded.scenario == SCENARIO
    assert loaded.facts == (FACT,)
    assert loaded.driver is not None
    assert (loaded.driver / "i386" / "xenvbd.sys").read_bytes() == b"MZ"
    with zipfile.ZipFile(file) as archive:
        readme = archive.read("README.txt").decode()
    assert "pvlab scenario run repro.zip" in readme
    assert "a mail" in readme


def test_the_same_bundle_is_the_same_file(tmp_path, package):
    for name in ("a.zip", "b.zip"):
        write_bundle(tmp_path / name, SCENARIO, package=package)
    one, other = (zipfile.ZipFile(tmp_path / name) for name in ("a.zip", "b.zip"))
    with one, other:
        assert [m.CRC for m in one.infolist()][1:] == [m.CRC for m in other.infolist()][1:]
        assert {m.date_time for m in one.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_scenario_alone(tmp_path):
    file = tmp_path / "any.name"
    file.write_text(dumps(SCENARIO))
    assert is_scenario(file)
    assert not is_bundle(file)
    assert load_any(file, tmp_path).driver is None
    folder = tmp_path / "evidence"
    folder.mkdir()
    (folder / "scenario.yaml").write_text(dumps(SCENARIO))
    assert load_any(folder, tmp_path).scenario == SCENARIO


def bad_zip(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scenario.yaml", dumps(SCENARIO))
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


@pytest.mark.parametrize(
    "members",
    [
        {"..__evil": "x"},
        {"crash.json": "{"},
        {"crash.json": json.dumps({"facts": [{"kind": "bugcheck"}]})},
        {"crash.json": "[" * 100_000},
        {"bomb": "0" * (70 << 20)},
    ],
)
def test_hostile_bundles_are_refused_in_a_line(tmp_path, members):
    file = bad_zip(tmp_path / "bad.zip", **members)
    with pytest.raises(UsageError) as caught:
        load_any(file, tmp_path)
    assert "\n" not in str(caught.value)


def test_mistakes_are_told_with_archive_and_line(tmp_path):
    file = tmp_path / "bad.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("scenario.yaml", "pvlab_scenario: 1\nsteps:\n- rebot\n")
    with pytest.raises(UsageError) as caught:
        load_any(file, tmp_path)
    assert str(caught.value).startswith(f"{file}: scenario.yaml:3: unknown step 'rebot'")


def test_what_is_no_scenario_is_refused(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"no scenario\.yaml in it"):
        load_any(empty, tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_any(tmp_path / "none", tmp_path)
    assert not is_scenario(tmp_path / "none")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04" + b"\0" * 50)
    assert not is_bundle(broken)
    with pytest.raises(UsageError):
        load_any(broken, tmp_path)
