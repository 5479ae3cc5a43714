from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.cli.main import main

GOLDEN = Path(__file__).parent / "golden"
D1 = str(GOLDEN / "windbg_d1.txt")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PVLAB_RESULTS", str(tmp_path / "results"))


def test_show(capsys: pytest.CaptureFixture[str]):
    assert main(["crash", "show", D1, str(GOLDEN / "mail_hang.txt")]) == 0
    out = capsys.readouterr().out
    assert "0x000000D1 DRIVER_IRQL_NOT_LESS_OR_EQUAL" in out
    assert "1: 0x00000014 memory that was touched" in out
    assert "driver: xenvbd  (WinDbg text windbg_d1.txt, line 21)" in out
    assert "xenvbd.sys f78d2000-f78d9000 linked 4740c4b0" in out
    assert "signature: " in out
    assert "kind: hang" in out


def test_show_json(capsys: pytest.CaptureFixture[str]):
    assert main(["crash", "show", "--json", D1]) == 0
    document = json.loads(capsys.readouterr().out)
    ((fact,),) = [one["facts"] for one in document["files"]]
    assert (fact["code"], fact["module"]) == (0x100000D1, "xenvbd")
    assert fact["parameters"] == [0x14, 2, 1, 0xF78D3A2B]
    assert fact["sources"]["code"]["at"] == "line 19"
    assert fact["signature"]["frames"][0] == "xenvbd+0x1a2b"


def test_what_steers_terminals_is_shown_harmless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    log = tmp_path / "log"
    log.write_bytes(b"[ 1.0] kernel BUG at [red]x.c\x1b]0;t\x07\x9b:12! [/nothing]\n")
    assert main(["crash", "show", str(log)]) == 0
    out = capsys.readouterr().out
    assert "kernel BUG at [red]x.c" in out
    assert not set(out) & {"\x1b", "\x07", "\x9b"}


@pytest.mark.parametrize("command", ["show", "bucket"])
def test_unreadable_input(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "x").write_bytes(bytes(100))
    for path in (tmp_path / "x", tmp_path / "none", tmp_path):
        assert main(["crash", command, D1, str(path)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert said.err.startswith("pvlab: ")
    assert not (tmp_path / "results").exists()


def test_bucket(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    store = str(tmp_path / "store")
    assert main(["crash", "bucket", D1, "--store", store, "--driver-build", "0.0.3"]) == 0
    assert "new bucket" in capsys.readouterr().out
    mail = str(GOLDEN / "mail_detach.txt")
    saved = str(GOLDEN / "eventlog.txt")
    assert main(["crash", "bucket", mail, saved, "--store", store, "--json"]) == 0
    told, *_ = document = json.loads(capsys.readouterr().out)["crashes"]
    # The mail's words, its quoted screen and its log are one crash, and the known one.
    assert (told["new"], told["count"]) == (False, 2)
    assert told["signature"]["module"] == "xenvbd"
    assert document[1]["near"][0]["bucket"] == told["bucket"]
    assert "the same stop code 0xD1" in document[1]["near"][0]["reasons"]
    assert main(["crash", "buckets", "--store", store]) == 0
    out = capsys.readouterr().out
    assert f"{told['bucket']}  2 crashes" in out
    assert "with 0.0.3 (1)" in out
    assert main(["crash", "buckets"]) == 0
    assert "no buckets in" in capsys.readouterr().out


def test_the_driver_of_a_run_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    test = {"id": "t", "outcome": "failed", "properties": {"pvlab.crash": "Kernel panic: x"}}
    record = {
        "schema_version": 1,
        "run_id": "r",
        "driver": {"name": "xenvbd", "version": "1", "sha256": "c" * 64},
        "tests": [test],
    }
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert main(["crash", "bucket", str(tmp_path)]) == 0
    assert f"with xenvbd 1 {'c' * 12} (1)" in capsys.readouterr().out
