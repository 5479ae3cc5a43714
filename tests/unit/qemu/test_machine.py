from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errand import Ended, Errand
from lab.core.errors import DeadlineExpired, LabBroken
from lab.core.paths import repo_root
from lab.images.boot import Hardware
from lab.qemu.emulator import Emulator
from lab.qemu.machine import (
    Console,
    DiskSpec,
    Machine,
    MachineSpec,
    connect_unix,
    process_state,
    started_at,
)

GOLDEN = Path(__file__).with_name("golden")
FAKE = Path(__file__).with_name("fake_qemu.py")

MachineMaker = Callable[..., Machine]


def soon() -> Deadline:
    """Far more than anything here takes, far less than a hung test may."""
    return Deadline(30)


def calls(scratch: Path) -> list[str]:
    lines = (scratch / "calls.jsonl").read_text().splitlines()
    return [json.loads(line)["execute"] for line in lines]


def wait_gone(pid: int) -> None:
    def probe() -> None:
        if started_at(pid):
            raise NotYet("it runs")

    wait_for(f"process {pid} to end", probe, soon(), interval=0.01)


def sockets_open() -> int:
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(entry).startswith("socket:")
    return found


# -- command line -----------------------------------------------------------------------


def spec(**changes: Any) -> MachineSpec:
    values: dict[str, Any] = {
        "name": "template",
        "emulator": Emulator(("/usr/bin/qemu-system-x86_64",), "5.2.0", "system"),
        "accel": "tcg",
        "cpu": "EPYC,+svm",
        "memory_mib": 2048,
        "kernel": Path("/images/xen"),
        "append": "console=com1 dom0_mem=768M,max:768M",
        "initrd": "/images/vmlinux root=/dev/vda,/images/initrd",
        "disks": (DiskSpec(Path("/t/root.qcow2")), DiskSpec(Path("/t/vg.qcow2"))),
        "forwards": {"ssh": 22, "winrm": 5985},
        "ram_file": Path("/t/ram"),
        "ram_shared": True,
    }
    return MachineSpec(**{**values, **changes})


def golden(name: str) -> list[str]:
    return (GOLDEN / name).read_text().splitlines()


def test_template_s_command_line():
    assert spec().argv(incoming=False, monitor_fd=7) == golden("template.argv")


def test_clone_s_command_line():
    """Differs in what it may write to: RAM is private, disks are throwaway."""
    clone = spec().cloned("clone 1", Path("/t/ram"))
    assert clone.argv(incoming=True, monitor_fd=9) == golden("clone.argv")


def test_clone_keeps_what_the_state_depends_on():
    clone = spec().cloned("clone 1", Path("/other/ram"))
    assert (clone.cpu, clone.memory_mib, clone.forwards) == (
        spec().cpu,
        spec().memory_mib,
        spec().forwards,
    )
    assert [disk.path for disk in clone.disks] == [disk.path for disk in spec().disks]


def test_commas_in_paths_and_names_are_escaped():
    odd = spec(
        name="test[a,b]",
        disks=(DiskSpec(Path("/a,b/root.qcow2")),),
        ram_file=Path("/a,b/ram"),
    )
    words = odd.argv(incoming=False, monitor_fd=3)
    assert "guest=test[a,,b]" in words
    assert any("file=/a,,b/root.qcow2,format=" in word for word in words)
    assert any("mem-path=/a,,b/ram,share=" in word for word in words)


def test_machine_without_a_ram_file_has_plain_memory():
    words = spec(ram_file=None).argv(incoming=False, monitor_fd=3)
    assert words[words.index("-machine") + 1] == "q35"
    assert "-object" not in words


def test_kvm_has_no_translation_buffer():
    words = spec(accel="kvm").argv(incoming=False, monitor_fd=3)
    assert words[words.index("-accel") + 1] == "kvm"


# -- start and stop ---------------------------------------------------------------------


def test_start(make_machine: MachineMaker, scratch: Path):
    with make_machine() as machine:
        machine.start(soon())
        assert machine.alive
        assert machine.ports == {"ssh": 20022, "winrm": 25985}
        assert machine.pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]
        assert machine.resident_kib["RssAnon"] > 0
        assert "Xen version" in machine.serial_log.read_text()
        # Throwaway disks are unlinked files in TMPDIR: they belong beside the machine.
        environment = json.loads((scratch / "environ.json").read_text())
        assert environment["TMPDIR"] == str(scratch)
        pid = machine.pid
    assert not Path(f"/proc/{pid}").exists()
    assert calls(scratch)[-1] == "quit"


def test_command_line_reaches_the_process(make_machine: MachineMaker, scratch: Path):
    machine = make_machine().start(soon())
    words = json.loads((scratch / "argv.json").read_text())
    descriptor = next(word for word in words if word.startswith("socket,id=monitor"))
    number = int(descriptor.rpartition("=")[2])
    assert words == machine.spec.argv(incoming=False, monitor_fd=number)


def test_forwards_that_come_late_are_waited_for(make_machine: MachineMaker):
    machine = make_machine(late=3).start(soon())
    assert machine.ports["ssh"] == 20022


def test_no_socket_is_left(make_machine: MachineMaker):
    gc.collect()
    before = sockets_open()
    machine = make_machine().start(soon())
    assert sockets_open() > before
    machine.stop()
    assert sockets_open() == before


def test_stop_twice_and_unstarted(make_machine: MachineMaker):
    machine = make_machine()
    machine.stop()
    machine.start(soon())
    machine.check_alive()
    machine.stop()
    machine.stop()
    assert machine.why_dead().endswith("ended with status 0")
    with pytest.raises(LabBroken, match="ended with status 0"):
        machine.check_alive()


def test_one_that_ignores_quit_is_killed(make_machine: MachineMaker):
    machine = make_machine(stubborn=True).start(soon())
    machine.stop(grace=0.05)
    assert "signal SIGKILL" in machine.why_dead()


def test_one_whose_monitor_hangs_is_killed(make_machine: MachineMaker):
    machine = make_machine(silent=["quit"]).start(soon())
    machine.stop(grace=0.05)
    assert "signal SIGKILL" in machine.why_dead()


def test_why_dead_before_the_start(make_machine: MachineMaker):
    machine = make_machine()
    assert machine.why_dead() == "QEMU was not started"
    assert not machine.alive
    with pytest.raises(LabBroken, match="not started"):
        _ = machine.pid


# -- trouble at the start ---------------------------------------------------------------


def test_last_words_of_one_that_dies_at_its_start(make_machine: MachineMaker):
    words = (
        "qemu: -cpu EPYC: no such thing\n"
        "qemu: warning: TCG doesn't support requested feature: CPUID.80000001H:ECX.svm [bit 2]"
    )
    machine = make_machine(die=words)
    with pytest.raises(LabBroken) as caught:
        machine.start(soon())
    assert caught.value.message.startswith("clone 1: QEMU (pid ")
    assert caught.value.message.endswith("ended with status 1: qemu: -cpu EPYC: no such thing")


def test_one_that_dies_without_a_word(make_machine: MachineMaker):
    machine = make_machine(die="qemu: warning: TCG doesn't support requested feature: x")
    with pytest.raises(LabBroken, match=r"ended with status 1$"):
        machine.start(soon())


def test_monitor_that_never_greets(make_machine: MachineMaker):
    machine = make_machine(mute=True)
    with pytest.raises(LabBroken, match=r"clone 1: .*did not answer greeting in time"):
        machine.start(Deadline(0.3))
    assert not machine.alive


def test_forwards_that_never_come(make_machine: MachineMaker):
    machine = make_machine(late=10**6)
    with pytest.raises(DeadlineExpired, match="port forwards; last seen: 0 of 2"):
        machine.start(Deadline(0.5))
    assert not machine.alive


def test_program_that_is_not_there(scratch: Path):
    machine = Machine(spec(emulator=Emulator(("/no/such/qemu",), "1", "system")), scratch)
    with pytest.raises(LabBroken, match=r"ended with status 127: .*/no/such/qemu"):
        machine.start(soon())
    detached = Machine(machine.spec, scratch, detached=True)
    with pytest.raises(LabBroken, match=r"template: cannot start QEMU: .*/no/such/qemu"):
        detached.start(soon())


# -- alive, and yet it does not run -----------------------------------------------------


def test_running_machine_is_not_stopped(make_machine: MachineMaker):
    assert make_machine().start(soon()).why_stopped(soon()) == ""


def test_machine_that_somebody_stopped(make_machine: MachineMaker):
    machine = make_machine(silent=["query-status"]).start(soon())
    os.kill(machine.pid, signal.SIGSTOP)

    def stopped() -> str:
        if process_state(machine.pid) != "T":
            raise NotYet("it runs")
        return machine.why_stopped(soon())

    words = wait_for("the process to stop", stopped, soon(), interval=0.01)
    assert words == f"QEMU (pid {machine.pid}) was stopped by a signal"
    machine.stop(grace=0.05)


def test_machine_without_room_for_its_disks(make_machine: MachineMaker, scratch: Path):
    machine = make_machine(status="io-error").start(soon())
    words = machine.why_stopped(soon())
    assert "one of its disks could not be written: " in words
    assert words.endswith(f"MiB are free in {scratch}")


@pytest.mark.parametrize("status", ["paused", "internal-error"])
def test_machine_that_is_held(make_machine: MachineMaker, status: str):
    machine = make_machine(status=status).start(soon())
    words = machine.why_stopped(soon())
    assert words == f"QEMU (pid {machine.pid}) does not run the machine: {status}"


def test_machine_whose_monitor_says_nothing(make_machine: MachineMaker):
    machine = make_machine(silent=["query-status"]).start(soon())
    assert "did not answer query-status" in machine.why_stopped(Deadline(0.05))


def test_machine_that_dies_of_the_question(make_machine: MachineMaker):
    machine = make_machine(crash=["query-status"]).start(soon())
    words = machine.why_stopped(soon())
    assert "SIGSEGV" in words or "monitor is gone" in words


# -- the end, seen from outside -----------------------------------------------------------


def test_kill_is_told_with_its_signal(make_machine: MachineMaker):
    machine = make_machine().start(soon())
    os.kill(machine.pid, signal.SIGKILL)
    wait_gone(machine.pid)
    assert machine.why_dead() == f"QEMU (pid {machine.pid}) ended with signal SIGKILL"
    with pytest.raises(LabBroken, match=r"clone 1: QEMU .* signal SIGKILL"):
        machine.save_state(machine.scratch / "state", soon())


def test_monitor_of_one_that_was_stopped(make_machine: MachineMaker):
    machine = make_machine().start(soon())
    machine.stop()
    with pytest.raises(LabBroken, match="ended with status 0"):
        _ = machine.monitor


def test_dies_with_its_parent(tmp_path: Path, scratch: Path):
    """No trace of ours runs on after a test session was killed, whatever killed it."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""\
        import signal, sys
        from pathlib import Path
        from lab.core.deadline import Deadline
        from lab.qemu.emulator import Emulator
        from lab.qemu.machine import Machine, MachineSpec

        argv = (sys.executable, "-I", "-S", {str(FAKE)!r}, "{{}}")
        spec = MachineSpec("m", Emulator(argv, "1", "system"), "tcg", "c", 64, Path("k"), "", "",
                           ())
        machine = Machine(spec, Path({str(scratch)!r})).start(Deadline(30))
        print(machine.pid, flush=True)
        signal.pause()
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(repo_root())}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        try:
            pid = int(parent.stdout.readline())
            assert started_at(pid)
        finally:
            parent.kill()
    wait_gone(pid)


# -- part of an errand --------------------------------------------------------------------


def test_errand_that_is_ended_kills_its_machine(make_machine: MachineMaker):
    errand = Errand()
    machine = make_machine(stubborn=True, silent=["quit"])
    errand.run(lambda: machine.start(soon()))
    pid = machine.pid
    errand.end()
    wait_gone(pid)
    assert "signal SIGKILL" in machine.why_dead()


@pytest.mark.parametrize(
    ("orders", "last"),
    [
        ({"mute": True}, ""),
        ({"late": 10**6}, "human-monitor-command"),
        ({"silent": ["cont"]}, "cont"),
    ],
)
def test_machine_is_killed_while_it_starts(
    make_machine: MachineMaker, scratch: Path, orders: dict[str, Any], last: str
):
    errand = Errand()
    state = scratch / "state"
    state.write_bytes(b"fake state\n")
    machine = make_machine(**orders)

    def so_far() -> None:
        # Written by the fake when it runs.
        if not (scratch / ("calls.jsonl" if last else "argv.json")).exists():
            raise NotYet("no process")
        if last and last not in calls(scratch):
            raise NotYet(f"no {last}")

    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(errand.run, lambda: machine.start_from(state, Deadline(3600)))
        wait_for("the start", so_far, soon(), interval=0.01)
        errand.end()
        error = starting.exception(30)
    assert isinstance(error, Ended | LabBroken)
    assert "signal SIGKILL" in machine.why_dead()


def test_errand_that_was_ended_starts_no_machine(make_machine: MachineMaker, scratch: Path):
    errand = Errand()

    def late() -> None:
        errand.end()
        make_machine().start(soon())

    with pytest.raises(Ended):
        errand.run(late)
    assert not (scratch / "qemu.log").exists()


def test_errand_that_is_ended_meanwhile_leaves_no_machine(
    make_machine: MachineMaker, monkeypatch: pytest.MonkeyPatch
):
    """Ended between the start of the process and the moment it is known of."""
    errand, real = Errand(), subprocess.Popen
    machine = make_machine(stubborn=True)

    def started(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        process = real(*args, **kwargs)
        errand.end()
        return process

    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(Ended):
        errand.run(lambda: machine.start(soon()))
    assert "signal SIGKILL" in machine.why_dead()


def test_errand_forgets_a_machine_that_was_stopped(make_machine: MachineMaker):
    errand = Errand()
    machine = make_machine()
    errand.run(lambda: machine.start(soon()))
    machine.stop()
    errand.end()
    assert machine.why_dead().endswith("ended with status 0")


def test_detached_machine_outlives_the_errand(make_machine: MachineMaker):
    errand = Errand()
    machine = make_machine(detached=True)
    errand.run(lambda: machine.start(soon()))
    errand.end()
    assert machine.alive


# -- state ------------------------------------------------------------------------------


def test_save_and_start_from(make_machine: MachineMaker, scratch: Path):
    state = scratch.parent / "it's a state"
    with make_machine(
        statuses=[{"status": "setup"}, {"status": "active"}, {"status": "completed"}]
    ) as m:
        m.start(soon())
        m.save_state(state, soon())
    assert state.read_bytes() == b"fake state\n"
    assert calls(scratch)[2:] == [
        "stop",
        "migrate-set-capabilities",
        "migrate",
        *["query-migrate"] * 3,
        "quit",
    ]
    (scratch / "calls.jsonl").unlink()
    (scratch / "serial.sock").unlink()
    with make_machine(loading=3) as clone:
        clone.start_from(state, soon())
        assert clone.alive
        assert "-incoming" in json.loads((scratch / "argv.json").read_text())
    done = calls(scratch)[2:]
    assert done[:2] == ["migrate-set-capabilities", "migrate-incoming"]
    # The processor runs only when all is loaded.
    assert done[-3:] == ["query-status", "cont", "quit"]


def test_ram_stays_out_of_the_state(make_machine: MachineMaker, scratch: Path):
    with make_machine() as machine:
        machine.start(soon())
        machine.save_state(scratch / "state", soon())
    lines = (scratch / "calls.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines if "migrate-set-capabilities" in line]
    assert found[0]["arguments"] == {
        "capabilities": [{"capability": "x-ignore-shared", "state": True}]
    }


def test_state_that_cannot_be_loaded(make_machine: MachineMaker, scratch: Path):
    (scratch / "state").write_bytes(b"junk")
    machine = make_machine()
    with pytest.raises(LabBroken, match="load of migration failed"):
        machine.start_from(scratch / "state", soon())
    assert not machine.alive


def test_state_that_never_loads(make_machine: MachineMaker, scratch: Path):
    (scratch / "state").write_bytes(b"fake state\n")
    machine = make_machine(loading=10**6)
    with pytest.raises(DeadlineExpired, match="state to be loaded; last seen: run state inmigrate"):
        machine.start_from(scratch / "state", Deadline(0.8))
    assert not machine.alive


def test_saving_that_fails_says_why(make_machine: MachineMaker, scratch: Path):
    failed = {"status": "failed", "error-desc": "No space left on device"}
    machine = make_machine(statuses=[{"status": "active"}, failed]).start(soon())
    with pytest.raises(LabBroken, match="state failed: No space left on device"):
        machine.save_state(scratch / "state", soon())
    assert machine.alive


def test_saving_that_takes_too_long(make_machine: MachineMaker, scratch: Path):
    machine = make_machine(statuses=[{"status": "active"}]).start(soon())
    with pytest.raises(DeadlineExpired, match="last seen: migration status active"):
        machine.save_state(scratch / "state", Deadline(0.3))


def test_monitor_refuses(make_machine: MachineMaker, scratch: Path):
    refusal = "Migration capability is not available"
    machine = make_machine(refuse={"migrate-set-capabilities": refusal}).start(soon())
    with pytest.raises(LabBroken, match=f"refused migrate-set-capabilities: .*{refusal}"):
        machine.save_state(scratch / "state", soon())
    assert machine.alive


def test_monitor_that_does_not_answer(make_machine: MachineMaker, scratch: Path):
    machine = make_machine(silent=["stop"]).start(soon())
    with pytest.raises(LabBroken, match="did not answer stop in time"):
        machine.save_state(scratch / "state", Deadline(0.2))
    assert machine.alive


def test_one_that_dies_of_a_command_is_told_as_dead(make_machine: MachineMaker, scratch: Path):
    machine = make_machine(fatal={"migrate": [1, "qemu: assertion failed"]}).start(soon())
    with pytest.raises(LabBroken, match="ended with status 1: qemu: assertion failed"):
        machine.save_state(scratch / "state", soon())


def test_one_that_crashes_of_a_command_is_told_with_its_signal(
    make_machine: MachineMaker, scratch: Path
):
    machine = make_machine(crash=["migrate"]).start(soon())
    with pytest.raises(LabBroken, match="ended with signal SIGSEGV"):
        machine.save_state(scratch / "state", soon())


# -- detached ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_detached_machine_outlives_its_handle(make_machine: MachineMaker, scratch: Path):
    machine = make_machine(detached=True).start(soon())
    pid = machine.pid
    machine.release()
    machine.stop()
    try:
        assert started_at(pid)
        other = Machine.running(machine.spec, scratch, pid, {"ssh": 1})
        assert other.alive
        assert (other.pid, other.ports) == (pid, {"ssh": 1})
        other.stop()
        other.release()
        assert started_at(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
    # A zombie is no machine, whether its parent has looked or not.
    assert other.why_dead() == f"QEMU (pid {pid}) has ended"
    os.waitpid(pid, 0)
    assert other.why_dead() == f"QEMU (pid {pid}) has ended"


def test_start_time_of_a_process_with_an_odd_name(tmp_path: Path):
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "30"]) as process:
        try:
            assert started_at(process.pid).isdigit()
        finally:
            process.kill()
    assert started_at(process.pid) == ""


# -- serial -----------------------------------------------------------------------------


def test_serial_socket_however_long_the_path(tmp_path: Path):
    scratch = tmp_path / ("x" * 120)
    scratch.mkdir()
    argv = (sys.executable, "-I", "-S", str(FAKE), "{}")
    with Machine(spec(emulator=Emulator(argv, "1", "system")), scratch) as machine:
        machine.start(soon())
        machine.serial_socket().close()
        with machine.console() as console:
            assert console.isalive()


def test_console_is_text():
    near, far = socket.socketpair()
    with near, far:
        console = Console(near)
        console.sendline("héllo")
        assert far.recv(99) == "héllo\n".encode()
        far.sendall("dom0 ✓".encode()[:-1])
        far.sendall("✓".encode()[-1:] + b"\xff\r\nroot# ")
        console.expect(r"✓(.)\r\nroot# ", timeout=10)
        assert console.match[1] == "\N{REPLACEMENT CHARACTER}"


def test_serial_socket_that_is_not_there(scratch: Path):
    before = sockets_open()
    with pytest.raises(LabBroken, match=r"cannot reach serial.sock: No such file"):
        connect_unix(scratch, "serial.sock")
    with pytest.raises(LabBroken, match=r"cannot reach serial.sock"):
        connect_unix(scratch / "gone", "serial.sock")
    assert sockets_open() == before


def test_a_machine_for_old_kernels(tmp_path: Path) -> None:
    old = Hardware(machine="pc", disk_bus="ide", nic="rtl8139")
    disks = (DiskSpec(tmp_path / "root"), DiskSpec(tmp_path / "vg"), DiskSpec(tmp_path / "guest"))
    made = spec(kernel=None, disks=disks, exchange_mib=64, hardware=old, ram_file=None)
    words = made.argv(incoming=False, monitor_fd=3)
    assert words[words.index("-machine") + 1] == "pc"
    assert not {"-kernel", "-append", "-initrd"} & set(words)
    devices = [words[at + 1] for at, word in enumerate(words) if word == "-device"]
    assert [one for one in devices if one.startswith("ide-hd")] == [
        "ide-hd,drive=disk0,bus=ide.0,unit=0",
        "ide-hd,drive=disk1,bus=ide.0,unit=1",
        "ide-hd,drive=disk2,bus=ide.1,unit=0",
        "ide-hd,drive=exchange,bus=ide.1,unit=1",
    ]
    assert "rtl8139,netdev=net0,romfile=" in devices
    assert [old.disk_in_dom0(index) for index in range(4)] == [
        "/dev/hda", "/dev/hdb", "/dev/hdc", "/dev/hdd",
    ]  # fmt: skip


def test_resets_from_inside_are_counted_and_others_not(make_machine: MachineMaker):
    def event(name: str, **data: object) -> dict[str, object]:
        return {"event": name, "data": data}

    before = [
        event("RESET", guest=True, reason="guest-reset"),
        event("RESET", guest=False, reason="host-qmp-system-reset"),
        event("RTC_CHANGE", offset=1),
    ]
    machine = make_machine(events={"query-status": before})
    machine.start(soon())
    assert machine.monitor.guest_resets == 0
    for count in (1, 2):
        machine.monitor.execute("query-status", deadline=soon())
        assert machine.monitor.guest_resets == count


def test_a_reset_and_a_picture_reach_the_monitor(make_machine: MachineMaker, scratch: Path):
    machine = make_machine()
    machine.start(soon())
    machine.reset(soon())
    machine.screen(scratch / "s.ppm", soon())
    assert calls(scratch)[-2:] == ["system_reset", "screendump"]
