from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from wsman import FakeCmd, Responder, WsmanServer

from lab.core.deadline import Deadline
from lab.core.errors import Blame, DeadlineExpired, LabBroken
from lab.guest.channel import STDIN_CHUNK, Channel
from lab.guest.errors import GuestSilent


def test_a_command_is_two_requests(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    channel.run("rem", deadline)
    before = len(server.actions)
    result = channel.run("echo hello", deadline)
    assert server.actions[before:] == ["Command", "Receive"]
    assert (result.stdout, result.exit_code, result.where) == ("hello\r\n", 0, "virtdemo")
    assert server.connections == 1


def test_output_is_code_page_437(
    serve: Callable[[Responder], WsmanServer], connect: Callable[..., Channel], deadline: Deadline
) -> None:
    channel = connect(serve(lambda line, stdin: ("é█\r\n", "ß", 7)))
    result = channel.run("x", deadline)
    assert (result.stdout, result.stderr, result.exit_code) == ("é█\r\n", "ß", 7)


def test_clean_ups_are_bounded_and_none_is_lost(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    most = 0
    for _ in range(40):
        channel.run("rem", deadline)
        most = max(most, len(server.commands))
    assert most < 15  # MaxConcurrentOperationsPerUser of WinRM 2.0
    channel.close(deadline)
    assert server.actions.count("Signal") == 40
    assert not server.shells
    assert not server.commands


def test_flush_sends_what_is_pending(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    channel.run("rem", deadline)
    channel.flush(deadline)
    assert server.actions[-1] == "Signal"
    assert not server.commands


def test_standard_input_fits_into_envelopes(
    channel: Channel, server: WsmanServer, cmd: FakeCmd, deadline: Deadline
) -> None:
    data = bytes(range(32, 127)) * (3 * STDIN_CHUNK // 95)
    result = channel.run('findstr "^"', deadline, stdin=data)
    assert result.stdout == data.decode()
    assert max(server.envelopes) <= 150 * 1024


def test_empty_standard_input_is_closed(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    assert channel.run('findstr "^"', deadline, stdin=b"").stdout == ""
    assert "Send" in server.actions


def test_a_shell_lost_between_commands_is_replaced(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    channel.run("rem", deadline)
    server.reboot()
    assert channel.run("echo again", deadline).stdout == "again\r\n"
    assert channel.shells_lost == 1


def test_a_shell_lost_during_a_command_is_silence(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    server.break_on, server.breakage = "Receive", "reboot"
    with pytest.raises(GuestSilent, match="lost its shell") as caught:
        channel.run("echo x", deadline)
    assert caught.value.blame is Blame.UNDECIDED
    server.break_on = ""
    assert channel.run("echo x", deadline).ok


def test_a_forgotten_command_is_not_a_lost_shell(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    channel.run("rem", deadline)
    server.break_on, server.breakage = "Signal", "no command"
    channel.flush(deadline)
    channel.run("rem", deadline)
    assert channel.shells_lost == 0
    assert server.actions.count("Create") == 1


def test_nobody_listening_is_silence(connect: Callable[..., Channel], deadline: Deadline) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        channel = Channel("127.0.0.1", unused.getsockname()[1], "Administrator", "secret")
        with pytest.raises(GuestSilent, match="connection refused; it never answered"):
            channel.run("rem", deadline)
        assert not channel.alive(deadline)
        channel.close()


def test_a_dropped_connection_is_silence(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    channel.run("rem", deadline)
    server.break_on, server.breakage = "Command", "drop"
    with pytest.raises(GuestSilent, match=r"awaited the start of `echo x`.*last answer"):
        channel.run("echo x", deadline)


def test_a_hanging_guest_is_silence_before_the_deadline(
    server: WsmanServer, connect: Callable[..., Channel], deadline: Deadline
) -> None:
    channel = connect(server, operation_s=0.2, slack_s=0.2)
    channel.run("rem", deadline)
    server.break_on, server.breakage = "Command", "hang"
    with pytest.raises(GuestSilent, match="no HTTP answer in time"):
        channel.run("echo x", deadline)
    assert not deadline.expired


def test_the_deadline_ends_endless_operation_timeouts(
    channel: Channel, server: WsmanServer
) -> None:
    server.break_on, server.breakage = "Receive", "timeout"
    with pytest.raises(DeadlineExpired, match=r"still running|when last asked"):
        channel.run("ping -t", Deadline(0.5))
    server.break_on = ""
    channel.close(Deadline(5))
    assert server.actions.count("Signal") == 1


def test_operation_timeouts_are_retried(channel: Channel, server: WsmanServer) -> None:
    server.break_on, server.breakage = "Receive", "timeout"
    timer = threading.Timer(0.2, setattr, (server, "break_on", ""))
    timer.start()
    assert channel.run("echo late", Deadline(30)).stdout == "late\r\n"
    timer.join()


def test_an_expired_deadline_sends_nothing(channel: Channel, server: WsmanServer) -> None:
    with pytest.raises(DeadlineExpired):
        channel.run("rem", Deadline(0))
    assert server.actions == []


def test_a_rejected_login_is_the_labs(
    server: WsmanServer, connect: Callable[..., Channel], deadline: Deadline
) -> None:
    channel = connect(server, password="wrong-word")
    with pytest.raises(LabBroken, match="rejected the login") as caught:
        channel.run("rem", deadline)
    assert caught.value.hint
    assert "wrong-word" not in f"{caught.value}{channel!r}{caught.value.__cause__!r}"
    with pytest.raises(LabBroken, match="rejected the login"):
        channel.wait_ready(deadline)


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        ("fault", r"Too many shells\. Close some\. \(fault 2150858999\)"),
        ("503", "HTTP 503"),
        ("html", "not a WinRM answer"),
    ],
)
def test_refusals_are_the_labs(
    channel: Channel, server: WsmanServer, deadline: Deadline, breakage: str, said: str
) -> None:
    server.break_on, server.breakage = "Create", breakage
    with pytest.raises(LabBroken, match=said):
        channel.run("rem", deadline)
    assert channel.alive(deadline)  # it answers, whatever it says


def test_wait_ready_outlasts_a_booting_guest(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    server.break_on, server.breakage = "Create", "503"
    timer = threading.Timer(0.1, setattr, (server, "break_on", ""))
    timer.start()
    channel.wait_ready(deadline)
    timer.join()
    assert server.actions[-1] == "Create"


def test_wait_ready_gives_the_last_reason(channel: Channel, server: WsmanServer) -> None:
    server.break_on, server.breakage = "Create", "drop"
    with pytest.raises(GuestSilent, match="closed without an answer"):
        channel.wait_ready(Deadline(0.2))


def test_wait_ready_ends_when_the_machine_is_known_to_be_dead(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    server.break_on, server.breakage = "Create", "drop"

    def look() -> None:
        if server.actions:
            raise LabBroken("QEMU ended with signal SIGKILL")

    with pytest.raises(LabBroken, match="QEMU ended"):
        channel.wait_ready(deadline, while_waiting=look)


def test_alive(channel: Channel, server: WsmanServer, deadline: Deadline) -> None:
    assert channel.alive(deadline)
    server.break_on, server.breakage = "Command", "drop"
    assert not channel.alive(deadline)


def test_close_towards_a_dead_guest_is_quiet(
    channel: Channel, server: WsmanServer, deadline: Deadline
) -> None:
    channel.run("rem", deadline)
    server.break_on, server.breakage = "Signal", "drop"
    channel.close(deadline)
    server.break_on = ""
    assert channel.run("echo new", deadline).stdout == "new\r\n"


def test_no_thread_is_left(server: WsmanServer, deadline: Deadline) -> None:
    before = threading.active_count()
    with Channel("127.0.0.1", server.port, "Administrator", "secret") as channel:
        channel.run("rem", deadline)
        assert "secret" not in repr(vars(channel))
    # The server's thread for the connection may need a moment to see it closed.
    assert threading.active_count() <= before + 1
