"""The guest answers WinRM clients that know nothing of the lab: pywinrm as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import winrm
from winrm.exceptions import InvalidCredentialsError
from winrm.protocol import Protocol


@pytest.fixture(scope="module")
def session(still):
    return session_on(still, still.machine.ports["winrm"])


@pytest.fixture
def protocol(still) -> Iterator[tuple[Protocol, str]]:
    """A protocol and its open shell."""
    link = session_on(still, still.machine.ports["winrm"]).protocol
    shell = link.open_shell()
    yield link, shell
    link.close_shell(shell)
    link.transport.close_session()


def session_on(place, port, password=None):
    return winrm.Session(
        f"http://127.0.0.1:{port}/wsman",
        auth=(place.access.username, password or place.access.password),
        transport="basic",
        ca_trust_path=None,  # else it warns where REQUESTS_CA_BUNDLE is set
    )


def test_diskpart_runs_a_script(session):
    script = r"C:\list-disks.txt"
    assert session.run_cmd(f"echo list disk> {script}").status_code == 0
    done = session.run_cmd("diskpart", ["/s", script])
    assert (done.status_code, done.std_err) == (0, b"")
    table = done.std_out.decode("cp437")
    assert "Disk ###" in table
    assert "Disk 0 " in table


def test_unknown_command_fails_as_on_windows(session):
    done = session.run_cmd("nonsense", ["/x"])
    assert done.status_code == 1
    assert done.std_out == b""
    assert done.std_err == (
        b"'nonsense' is not recognized as an internal or external command,\r\n"
        b"operable program or batch file.\r\n"
    )


def test_exit_code_and_both_streams(session):
    done = session.run_cmd("echo out& echo err 1>&2& exit /b 5")
    assert done.status_code == 5
    assert done.std_out.strip() == b"out"
    assert done.std_err.strip() == b"err"


def test_command_reads_what_the_client_sends(protocol):
    link, shell = protocol
    # A pipe rather than a console: findstr reads it to its end.
    command = link.run_command(shell, "findstr", ["/n", '"^"'], console_mode_stdin=False)
    link.send_command_input(shell, command, "first\r\nsec")
    link.send_command_input(shell, command, "ond\r\n", end=True)
    out, err, code = link.get_command_output(shell, command)
    link.cleanup_command(shell, command)
    assert (out, err, code) == (b"1:first\r\n2:second\r\n", b"", 0)


def test_wrong_password_is_refused(still):
    wrong = session_on(still, still.machine.ports["winrm"], password="wrong")
    with pytest.raises(InvalidCredentialsError):
        wrong.run_cmd("ver")


def test_reached_through_a_tunnel_in_dom0(still):
    address, port = still.access.host.guest_address, still.profile.winrm.port
    with still.dom0.tunnel(address, port) as local:
        session = session_on(still, local)
        done = session.run_cmd("hostname")
        session.protocol.transport.close_session()
    assert done.status_code == 0
    assert done.std_out.strip()
