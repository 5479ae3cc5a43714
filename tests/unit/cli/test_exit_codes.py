from __future__ import annotations

import pytest

from lab.cli import main as cli
from lab.cli.errors import run_guarded
from lab.core.errors import DriverFailure, LabBroken, UsageError


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PVLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("no such file", hint="name one"), 2, "pvlab: no such file (name one)"),
        (LabBroken("QEMU died"), 3, "pvlab: QEMU died"),
        (DriverFailure("no state 4"), 1, "pvlab: no state 4"),
        (KeyboardInterrupt(), 130, "pvlab: interrupted"),
    ],
)
def test_errors_are_one_line_and_a_code(capsys, error, code, line):
    assert run_guarded(raising(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == line + "\n"


def test_unexpected_error_saves_its_traceback(capsys, cache):
    assert run_guarded(raising(ValueError("odd\nthing"))) == 3
    err = capsys.readouterr().err
    (saved,) = (cache / "errors").iterdir()
    assert err == f"pvlab: unexpected ValueError: odd thing (details: {saved})\n"
    assert "Traceback" in saved.read_text()


def test_unwritable_cache_does_not_hide_the_error(capsys, monkeypatch):
    monkeypatch.setenv("PVLAB_CACHE", "/proc/nowhere")
    assert run_guarded(raising(ValueError("odd"))) == 3
    assert "unexpected ValueError: odd" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "given"), [(0, None), (0, 0), (1, 1), (3, 3), (0, "something else")]
)
def test_a_command_s_own_code(code, given):
    assert run_guarded(lambda: given) == code


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["gate"],
        ["gate", "--nonsense"],
        ["gate", "--driver", "/no/such/package"],
        ["run", "--profile", "nonsense"],
        ["run", "--driver", "/no/such/package"],
        ["demo", "--config", "/no/such/file"],
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys, words):
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pvlab: ")
    assert len(err.splitlines()) == 1


def test_interrupted_command_says_so(capsys, monkeypatch):
    from lab.place import detached

    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(detached, "down", interrupt)
    assert cli.main(["down"]) == 130
    assert capsys.readouterr().err == "pvlab: interrupted\n"


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pvlab ")


@pytest.mark.parametrize(
    "command", ["doctor", "setup", "image", "up", "down", "ssh", "console", "run", "gate", "demo"]
)
def test_every_command_has_help(capsys, command):
    assert cli.main([command, "--help"]) == 0
    assert command in capsys.readouterr().out
