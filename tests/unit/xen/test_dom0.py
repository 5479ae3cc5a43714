"""Dom0 against an SSH server in this process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from ssh_server import SshServer, serving

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken, UsageError
from lab.xen.dom0 import Dom0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with serving(tmp_path_factory.mktemp("ssh")) as one:
        yield one


@pytest.fixture
def dom0(server: SshServer) -> Iterator[Dom0]:
    with Dom0("127.0.0.1", server.port, "root", server.key_file, host_key=server.host_key) as one:
        one.connect(Deadline(30))
        yield one


def soon() -> Deadline:
    return Deadline(30)


def test_run(dom0: Dom0) -> None:
    result = dom0.run("echo out; echo err >&2; exit 3", soon())
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)
    assert result.where == "dom0"


def test_check(dom0: Dom0) -> None:
    with pytest.raises(LabBroken, match="exited 1: nope"):
        dom0.run("echo nope >&2; exit 1", soon(), check=True)


def test_large_output_on_both_streams_while_input_is_sent(dom0: Dom0) -> None:
    # More than a channel's window (2 MiB) each way.
    data = b"0123456789abcde\n" * 200_000
    result = dom0.run_raw("tee /dev/stderr", Deadline(60), stdin=data)
    assert result.stdout == data
    assert result.stderr == data


def test_command_that_ignores_its_input(dom0: Dom0) -> None:
    assert dom0.run("true", soon(), stdin=b"x" * 5_000_000).ok


def test_bytes_that_are_not_utf8(dom0: Dom0) -> None:
    assert dom0.run("printf 'a\\377b'", soon()).stdout == "a\ufffdb"
    assert dom0.run_raw("printf 'a\\377b'", soon()).stdout == b"a\xffb"


def test_deadline(dom0: Dom0) -> None:
    with pytest.raises(DeadlineExpired, match="last seen: halfway") as caught:
        dom0.run("echo halfway; exec sleep 30", Deadline(0.5))
    assert "sleep 30" in caught.value.waited_for
    assert dom0.run("echo still here", soon()).stdout == "still here\n"


def test_while_waiting_ends_the_wait(dom0: Dom0) -> None:
    def look() -> None:
        raise LabBroken("seen enough")

    with pytest.raises(LabBroken, match="seen enough"):
        dom0.run("exec sleep 30", soon(), while_waiting=look)


def test_commands_side_by_side(dom0: Dom0) -> None:
    answers: list[str] = []
    threads = [
        threading.Thread(
            target=lambda n=n: answers.append(dom0.run(f"sleep 0.2; echo {n}", soon()).stdout)
        )
        for n in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(answers) == ["0\n", "1\n", "2\n", "3\n"]


def test_connection_lost_while_running(dom0: Dom0) -> None:
    with pytest.raises(LabBroken, match="connection to dom0"):
        dom0.run("drop", soon())
    with pytest.raises(LabBroken, match="connection to dom0 was lost"):
        dom0.run("true", soon())


def test_not_connected(server: SshServer) -> None:
    with pytest.raises(LabBroken, match="not connected"):
        Dom0("127.0.0.1", server.port, "root", server.key_file).run("true", soon())


def test_everything_is_one_connection(server: SshServer, dom0: Dom0, tmp_path: Path) -> None:
    before = server.handshakes
    dom0.run("true", soon())
    (tmp_path / "a").write_text("text")
    assert dom0.read_text(str(tmp_path / "a"), soon()) == "text"
    dom0.put(tmp_path / "a", str(tmp_path / "b"), soon())
    assert dom0.testinfra.file(str(tmp_path / "b")).content_string == "text"
    assert dom0.testinfra.run("echo %s", "it's").stdout == "it's\n"
    assert server.handshakes == before


def test_files_both_ways(dom0: Dom0, tmp_path: Path) -> None:
    local, remote, back = (tmp_path / name for name in ("local", "remote", "back"))
    local.write_bytes(bytes(range(256)) * 4000)
    dom0.put(local, str(remote), soon())
    dom0.get(str(remote), back, soon())
    assert back.read_bytes() == local.read_bytes()


def test_file_that_is_not_there(dom0: Dom0, tmp_path: Path) -> None:
    with pytest.raises(LabBroken, match="cannot copy /nonexistent out of dom0"):
        dom0.get("/nonexistent", tmp_path / "x", soon())
    with pytest.raises(LabBroken, match="No such file"):
        dom0.read_text("/nonexistent", soon())


def test_copy_past_its_deadline(dom0: Dom0, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"x" * 1_000_000)
    with pytest.raises(DeadlineExpired, match="copy"):
        dom0.put(local, str(tmp_path / "remote"), Deadline(0))
    dom0.put(local, str(tmp_path / "remote"), soon())


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that answers in capitals until the client has finished."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    while data := client.recv(4096):
                        client.sendall(data.upper())

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_tunnel(dom0: Dom0, echo_port: int) -> None:
    threads = threading.active_count()
    with dom0.tunnel("127.0.0.1", echo_port) as port:
        for word in (b"one", b"two"):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(word)
                client.shutdown(socket.SHUT_WR)
                answer = b""
                while data := client.recv(100):
                    answer += data
            assert answer == word.upper()
    assert not [one for one in threading.enumerate() if one.name.startswith("forward-")]
    assert threading.active_count() <= threads + 4  # the test server's own
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset
        socket.create_connection(("127.0.0.1", port), timeout=2).close()


def test_tunnel_closes_with_a_connection_open(dom0: Dom0, echo_port: int) -> None:
    with dom0.tunnel("127.0.0.1", echo_port) as port:
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
        client.sendall(b"x")
        assert client.recv(1) == b"X"
    assert client.recv(1) == b""
    client.close()


def test_tunnel_to_a_closed_port(dom0: Dom0) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        target = unused.getsockname()[1]
    with (
        dom0.tunnel("127.0.0.1", target) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as client,
    ):
        assert client.recv(1) == b""


def test_connect_waits_for_a_server_that_starts_late(tmp_path: Path) -> None:
    with (
        serving(tmp_path) as late,
        contextlib.closing(socket.create_server(("127.0.0.1", 0))) as rude,
    ):
        seen = threading.Event()

        def hang_up_then_relay() -> None:
            # At once, as QEMU does while nobody listens in dom0.
            rude.accept()[0].close()
            while True:
                try:
                    client, _ = rude.accept()
                except OSError:
                    return
                seen.set()
                with client, socket.create_connection(("127.0.0.1", late.port)) as real:
                    answers = threading.Thread(target=relay, args=(real, client))
                    answers.start()
                    relay(client, real)
                    answers.join()

        def relay(source: socket.socket, sink: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(4096):
                    sink.sendall(data)
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

        relaying = threading.Thread(target=hang_up_then_relay)
        relaying.start()
        try:
            with Dom0("127.0.0.1", rude.getsockname()[1], "root", late.key_file) as dom0:
                dom0.connect(Deadline(60))
                assert seen.is_set()
                assert dom0.run("echo up", soon()).stdout == "up\n"
        finally:
            rude.shutdown(socket.SHUT_RDWR)
            relaying.join()


def test_connection_lost_during_the_login_is_tried_again(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.lost_logins = 1
        with Dom0("127.0.0.1", server.port, "root", server.key_file) as dom0:
            dom0.connect(Deadline(60))
            assert server.lost_logins == 0
            assert server.handshakes == 2


def test_nobody_there(server: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(LabBroken, match="last seen: TCP: Connection refused"):
        Dom0("127.0.0.1", port, "root", server.key_file).connect(Deadline(0.3))


def test_who_knows_that_nobody_will_come_ends_the_wait(server: SshServer) -> None:
    looks = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise LabBroken("the machine is dead")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    one = Dom0("127.0.0.1", port, "root", server.key_file)
    with pytest.raises(LabBroken, match="the machine is dead"):
        one.connect(soon(), while_waiting=look)


def test_silent_port(server: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(LabBroken, match=r"did not answer .* last seen: SSH: "):
            Dom0("127.0.0.1", port, "root", server.key_file).connect(Deadline(0.5))


def test_wrong_host_key(server: SshServer) -> None:
    other = paramiko.RSAKey.generate(2048)
    dom0 = Dom0("127.0.0.1", server.port, "root", server.key_file, host_key=other)
    with pytest.raises(LabBroken, match="is not this lab's dom0"):
        dom0.connect(soon())


def test_refused_user(server: SshServer) -> None:
    with pytest.raises(LabBroken, match="refused the key"):
        Dom0("127.0.0.1", server.port, "nobody", server.key_file).connect(soon())


def test_no_key(server: SshServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot use the key"):
        Dom0("127.0.0.1", server.port, "root", tmp_path / "none").connect(soon())
