from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.qemu import probe
from lab.qemu.accel import TCG_CPU
from lab.qemu.emulator import Emulator, system_emulator
from lab.qemu.probe import PROBE_KERNEL, ProbeResult, run_probe

SOURCE = Path(probe.__file__).with_name("probe.S")


@pytest.mark.skipif(
    not (shutil.which("as") and shutil.which("objcopy")), reason="binutils are not installed"
)
def test_kernel_is_what_its_source_says(tmp_path: Path):
    subprocess.run(["as", "--32", str(SOURCE), "-o", "probe.o"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "probe.o", "probe.bin"], cwd=tmp_path, check=True)
    assert (tmp_path / "probe.bin").read_bytes() == PROBE_KERNEL


def ending(tmp_path: Path, body: str) -> Emulator:
    """A QEMU that does what ``body`` says."""
    script = tmp_path / "qemu.py"
    script.write_text(textwrap.dedent(body))
    return Emulator((sys.executable, "-I", "-S", str(script)), "7.2.0", "system")


def debug_exit(value: int) -> int:
    """QEMU's exit status when ``value`` was written to isa-debug-exit."""
    return value << 1 | 1


def run(emulator: Emulator) -> ProbeResult:
    return run_probe(emulator, "tcg", TCG_CPU, Deadline(30))


@pytest.mark.parametrize(
    ("value", "result", "why_not"),
    [
        (0x12, ProbeResult(True, svm=True), ""),
        (0x14, ProbeResult(True, vmx=True), ""),
        (0x13, ProbeResult(True, pae_quirk=True, svm=True), "PAE directory pointers"),
        (0x10, ProbeResult(True), "neither SVM nor VMX"),
        (0x11, ProbeResult(True, pae_quirk=True), "neither SVM nor VMX"),
    ],
)
def test_answers(tmp_path: Path, value: int, result: ProbeResult, why_not: str):
    found = run(ending(tmp_path, f"raise SystemExit({debug_exit(value)})"))
    assert found == result
    assert why_not in found.why_not
    assert bool(found.why_not) == bool(why_not)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        # A processor that shows SVM and refuses it resets; -no-reboot ends QEMU with 0.
        ("", "it reset (exit status 0)"),
        ("raise SystemExit('qemu: no such accelerator')", "qemu: no such accelerator"),
        ("import os; os.abort()", "it reset (exit status -6)"),
        # Not the result byte's mark, though the status is odd.
        ("raise SystemExit(3)", "it reset (exit status 3)"),
        ("raise SystemExit(127)", "it reset (exit status 127)"),
    ],
)
def test_machines_that_do_not_get_that_far(tmp_path: Path, body: str, said: str):
    found = run(ending(tmp_path, body))
    assert found == ProbeResult(False, said=said)
    assert found.why_not == f"a machine does not start: {said}"


def test_features_that_tcg_lacks_are_no_last_words(tmp_path: Path):
    body = """\
    import sys
    print("qemu: could not open firmware", file=sys.stderr)
    print("qemu: warning: TCG doesn't support requested feature: x", file=sys.stderr)
    sys.exit(1)
    """
    assert run(ending(tmp_path, body)).said == "qemu: could not open firmware"


def test_one_that_is_not_there():
    found = run(Emulator(("/no/such/qemu",), "1", "system"))
    assert not found.started
    assert "/no/such/qemu" in found.said


def test_one_that_hangs_is_ended(tmp_path: Path):
    emulator = ending(
        tmp_path,
        f"""\
        import os, signal
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        signal.pause()
        """,
    )
    found = run_probe(emulator, "tcg", TCG_CPU, Deadline(0.3))
    assert found == ProbeResult(False, said="it hangs")
    if (tmp_path / "pid").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)


def test_no_setpriv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "setpriv" in run(Emulator(("qemu",), "1", "system")).said


def test_real_start():
    """Whatever QEMU this system has, the probe kernel runs to its end in it."""
    try:
        emulator = system_emulator()
    except LabBroken as error:
        pytest.skip(str(error))
    if emulator is None:
        pytest.skip("no QEMU on this system")
    found = run_probe(emulator, "tcg", TCG_CPU, Deadline(60))
    assert found.started, found.said
    # TCG has had SVM since QEMU 0.9; it has no VMX.
    assert found.svm
    assert not found.vmx
