"""The script that looks at dom0, run here by a shell on files and processes that are made up."""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired
from lab.place import health

LISTING = (
    "Name                                        ID   Mem VCPUs\tState\tTime(s)\n"
    "virtdemo                                     {id}    95     1     {state}      29.2\n"
)
GONE = "virtdemo is an invalid domain identifier (rc=-6)\n"
STORE = "S xenstored /usr/lib/xen-4.17/bin/xenstored --pid-file /run/xenstored.pid"
KEEPER = "Ssl xl /usr/lib/xen-4.17/bin/xl create /etc/xen/virtdemo.cfg"
MODEL = "Ssl xen-qemu-system /usr/libexec/xen-qemu-system-i386 -xen-domid 1 -no-shutdown"
XEND = "S python /usr/bin/python /usr/sbin/xend start"
WAITING = "Waiting for domain virtdemo (domid 1) to die [pid 283]\n"


class Dom0:
    """Runs the script with the paths below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = [STORE, KEEPER, MODEL]
        self.listing = LISTING.format(id=1, state="-b----")
        self.listing_status = 0
        self.disks = ["/dev/null"]
        for name in ("bin", "log/xen", "net/vif1.0/brport", "net/xenbr0"):
            (folder / name).mkdir(parents=True)
        self.log.write_text(WAITING)
        (folder / "net/vif1.0/brport/bridge").symlink_to(folder / "net/xenbr0")
        self.flags("vif1.0", "0x1303")
        self.flags("xenbr0", "0x1003")

    @property
    def log(self) -> Path:
        return self.folder / "log/xen/xl-virtdemo.log"

    def flags(self, device: str, value: str) -> None:
        (self.folder / "net" / device / "flags").write_text(value + "\n")

    def program(self, name: str, text: str, status: int = 0) -> None:
        (self.folder / f"{name}.out").write_text(text)
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/sh\ncat {self.folder}/{name}.out\nexit {status}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def run(self, command: str, deadline: Deadline, *, stdin: bytes) -> CommandResult:
        self.program("ps", "\n".join([*self.processes, "Z xl <defunct>"]) + "\n")
        self.program("xl", self.listing, self.listing_status)
        script = stdin.decode().replace("/var/log", f"{self.folder}/log")
        script = script.replace("/sys/class/net", f"{self.folder}/net")
        script = script.replace("PATH=", f"PATH={self.folder}/bin:")
        done = subprocess.run(command.split(), input=script, capture_output=True, text=True)
        return CommandResult(command, done.returncode, done.stdout, done.stderr, 0.1, "dom0")

    def cause(self, *, guest_type: Any = "hvm", ended_on_purpose: bool = False) -> str:
        dom0: Any = self
        return health.of_dom0(
            dom0,
            domain="virtdemo",
            listing="xl list virtdemo",
            disks=self.disks,
            guest_type=guest_type,
            ended_on_purpose=ended_on_purpose,
            deadline=Deadline(10),
        )


@pytest.fixture
def dom0(tmp_path: Path) -> Dom0:
    made = Dom0(tmp_path)
    made.disks = []
    return made


def test_nothing_is_wrong(dom0: Dom0):
    assert dom0.cause() == ""
    assert not (dom0.folder / "log/pvlab-probe").exists()


def test_filesystem_that_takes_nothing(dom0: Dom0):
    (dom0.folder / "log/pvlab-probe").symlink_to("/dev/full")
    assert dom0.cause() == "dom0 cannot write to its root filesystem: No space left on device"


def test_lost_disk(dom0: Dom0):
    dom0.disks = ["/dev/null"]  # a character device
    assert dom0.cause() == "dom0 has lost its disk /dev/null"


@pytest.mark.parametrize("instead", [[], [STORE.replace("S ", "Z ", 1)], ["T xenstored xenstored"]])
def test_no_xenstored(dom0: Dom0, instead: list[str]):
    dom0.processes = [*instead, KEEPER, MODEL]
    dom0.listing_status = 1  # it would hang
    assert dom0.cause() == "xenstored does not run in dom0"


def test_toolstack_that_fails(dom0: Dom0):
    dom0.listing, dom0.listing_status = "xc: error: no privcmd\nlibxl: error: cannot open\n", 1
    assert dom0.cause() == "the toolstack in dom0 failed: libxl: error: cannot open"


@pytest.mark.parametrize("state", ["-b----", "r-----", "------", "--p---", "---sr-"])
def test_nobody_restarts_the_guest(dom0: Dom0, state: str):
    dom0.processes.remove(KEEPER)
    dom0.listing = LISTING.format(id=1, state=state)
    assert dom0.cause() == (
        "xl's process for virtdemo does not run in dom0: nobody restarts the guest"
    )


ENDED = "Domain 1 has shut down, reason code 1 0x1\nDone. Exiting now\n"


@pytest.mark.parametrize("state", ["---sr-", "---s--", "---sc-"])
def test_guest_that_is_kept_needs_nobody(dom0: Dom0, state: str):
    dom0.processes = [STORE]
    dom0.listing = LISTING.format(id=1, state=state)
    dom0.log.write_text(WAITING + ENDED)
    assert dom0.cause() == ""


@pytest.mark.parametrize(
    ("log", "processes", "cause"),
    [
        (
            WAITING + "Domain 1 has been destroyed.\n",
            [STORE],
            "the guest's domain was destroyed from dom0 (Domain 1 has been destroyed.)",
        ),
        # Saved, or gone by its own doing.
        (WAITING + ENDED, [STORE], ""),
        # In the middle of a restart.
        (WAITING + "Done. Rebooting now\n", [STORE, KEEPER], ""),
        (
            WAITING + "libxl: error: cannot make the domain\n",
            [STORE],
            "the guest's domain is gone and xl's process for virtdemo does not run in dom0: "
            "libxl: error: cannot make the domain",
        ),
    ],
)
def test_domain_that_is_gone(dom0: Dom0, log: str, processes: list[str], cause: str):
    dom0.listing, dom0.listing_status = GONE, 1
    dom0.log.write_text(log)
    dom0.processes = processes
    assert dom0.cause() == cause


def test_domain_that_the_test_ended(dom0: Dom0):
    dom0.listing, dom0.listing_status, dom0.processes = GONE, 1, [STORE]
    assert dom0.cause(ended_on_purpose=True) == ""


def test_no_device_model(dom0: Dom0):
    dom0.listing = LISTING.format(id=12, state="-b----")
    dom0.processes = [STORE, KEEPER, MODEL]  # of domain 1
    assert dom0.cause() == "the guest's device model (qemu-dm) does not run in dom0"
    assert dom0.cause(guest_type="pv") == ""
    dom0.processes = [STORE, KEEPER, "S qemu-dm /usr/lib/xen/bin/qemu-dm -d 12 -m 512"]
    assert dom0.cause() == ""


def test_domain_in_the_making_has_no_device_model_yet(dom0: Dom0):
    dom0.listing = LISTING.format(id=2, state="--p---")
    assert dom0.cause() == ""


def test_xend_restarts_all(dom0: Dom0):
    dom0.log.unlink()
    assert dom0.cause() == "xend does not run in dom0: nobody restarts the guest"
    dom0.processes = [STORE, XEND, MODEL]
    assert dom0.cause() == ""


def test_network_that_is_down(dom0: Dom0):
    dom0.flags("vif1.0", "0x1002")
    assert dom0.cause() == "the guest's network vif1.0 in dom0 is down"
    dom0.flags("vif1.0", "0x1003")
    dom0.flags("xenbr0", "0x1002")
    assert dom0.cause() == "the bridge of the guest's network vif1.0 in dom0 is down"
    (dom0.folder / "net/vif1.0/brport/bridge").unlink()
    assert dom0.cause() == "the guest's network vif1.0 in dom0 is in no bridge"


def test_shell_that_does_not_get_through(dom0: Dom0):
    dom0.run = lambda *_, **__: CommandResult(  # type: ignore[method-assign,assignment]
        "sh -s", 127, "asking: its processes\n", "sh: ps: not found\n", 0.1, "dom0"
    )
    assert dom0.cause() == "dom0 could not be looked at: sh: ps: not found"


# -- the console ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "(XEN) Hardware Dom0 crashed: 'noreboot' set - not rebooting.",
        "(XEN) Domain 0 shutdown: rebooting machine.",
        "(XEN) Panic on CPU 0:",
        "[   12.3] Kernel panic - not syncing: sysrq triggered crash",
    ],
)
def test_last_words_on_the_console(tmp_path: Path, line: str):
    log = tmp_path / "serial.log"
    log.write_text(f"(XEN) booting\n{line}\r\n(XEN) more\n")
    assert health.of_console(log) == f"dom0 or Xen ended: {line}"


def test_console_of_one_that_runs(tmp_path: Path):
    log = tmp_path / "serial.log"
    assert health.of_console(log) == ""
    log.write_text("(XEN) Domain 10 crashed on cpu#0\n(d1) hello\n")
    assert health.of_console(log) == ""


# -- the way to the guest ---------------------------------------------------------------


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as sock:
                sock.recv(100)
                answer(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


class Asks:
    """A dom0 that asks the guest, and gets this for an answer."""

    def __init__(self, said: str | None) -> None:
        self.said = said
        self.commands: list[str] = []

    def run(self, command: str, deadline: Deadline) -> CommandResult:
        self.commands.append(command)
        if self.said is None:
            raise DeadlineExpired("an answer", "nothing", 30.0)
        return CommandResult(command, 0, self.said, "", 0.1, "dom0")


def way(asks: Asks, port: int) -> str:
    dom0: Any = asks
    return health.of_way(dom0, port, ("192.168.53.10", 5985), Deadline(10))


def test_guest_that_answers_us_is_not_asked_twice():
    asks = Asks("HTTP\n")
    with server(lambda sock: sock.sendall(b"HTTP/1.1 404 Not Found\r\n")) as port:
        assert way(asks, port) == ""
    assert asks.commands == []


def test_guest_that_answers_dom0_alone():
    asks = Asks("HTTP\n")
    with server(lambda sock: None) as port:
        cause = way(asks, port)
    assert re.search(rf"from port {port} .* to 192.168.53.10:5985 is cut", cause)
    assert "/dev/tcp/192.168.53.10/5985" in asks.commands[0]


@pytest.mark.parametrize("said", ["\n", "", None])
def test_guest_that_answers_nobody(said: str | None):
    with server(lambda sock: None) as port:
        assert way(Asks(said), port) == ""
