"""The WinRM endpoint, driven by unmodified pywinrm and by raw HTTP."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Iterator

import pytest
import winrm
from standin_guest import PASSWORD, Guest
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMOperationTimeoutError,
    WSManFaultError,
)
from winrm.protocol import Protocol

URL = "http://127.0.0.1:{}/wsman"


def protocol(port: int, timeout_s: int = 5, password: str = PASSWORD) -> Protocol:
    return Protocol(
        URL.format(port),
        transport="basic",
        username="Administrator",
        password=password,
        operation_timeout_sec=timeout_s,
        read_timeout_sec=timeout_s + 5,
    )


@pytest.fixture
def client(server) -> Iterator[Protocol]:
    made = protocol(server.port)
    yield made
    made.transport.close_session()


def test_session_run_cmd(server):
    session = winrm.Session(
        URL.format(server.port), auth=("administrator", PASSWORD), transport="basic"
    )
    result = session.run_cmd("echo", ["hello", "there"])
    assert (result.status_code, result.std_out) == (0, b"hello there\r\n")
    result = session.run_cmd("nosuch")
    assert result.status_code == 1
    assert result.std_err == (
        b"'nosuch' is not recognized as an internal or external command,\r\n"
        b"operable program or batch file.\r\n"
    )


def test_diskpart_through_winrm(server, guest: Guest):
    guest.disk("xvdc", 131072)
    session = winrm.Session(
        URL.format(server.port), auth=("Administrator", PASSWORD), transport="basic"
    )
    (guest.c / "pvlab/list.txt").write_text("rescan\nlist disk\n")
    result = session.run_cmd("diskpart", ["/s", "C:\\pvlab\\list.txt"])
    assert result.status_code == 0
    assert b"  Disk 1    Online        64 MB    64 MB" in result.std_out


def test_wrong_password_is_refused(server):
    client = protocol(server.port, password="wrong")
    with pytest.raises(InvalidCredentialsError):
        client.open_shell()
    client.transport.close_session()


@pytest.mark.parametrize("user", ["STANDIN\\administrator", ".\\Administrator"])
def test_user_name_with_machine(server, user):
    session = winrm.Session(URL.format(server.port), auth=(user, PASSWORD), transport="basic")
    assert session.run_cmd("echo x").std_out == b"x\r\n"


def test_input_is_streamed(client):
    shell = client.open_shell()
    command = client.run_command(shell, 'findstr "^" > C:\\pvlab\\in.txt')
    data = bytes(range(32, 127)) * 1500
    for at in range(0, len(data), 60000):
        client.send_command_input(shell, command, data[at : at + 60000])
    client.send_command_input(shell, command, b"\r\n", end=True)
    assert client.get_command_output(shell, command) == (b"", b"", 0)
    client.cleanup_command(shell, command)
    command = client.run_command(shell, "type C:\\pvlab\\in.txt")
    out, _, code = client.get_command_output(shell, command)
    assert (out, code) == (data + b"\r\n", 0)
    client.close_shell(shell, close_session=False)


def test_fast_command_is_done_in_first_receive(client):
    shell = client.open_shell()
    command = client.run_command(shell, "echo a & echo b 1>&2 & exit 3")
    out, err, code, done = client.get_command_output_raw(shell, command)
    assert (out, err, code, done) == (b"a \r\n", b"b  \r\n", 3, True)


def test_receive_times_out_and_the_command_goes_on(server):
    client = protocol(server.port, timeout_s=1)
    shell = client.open_shell()
    command = client.run_command(shell, "findstr x")
    with pytest.raises(WinRMOperationTimeoutError):
        client.get_command_output_raw(shell, command)
    client.send_command_input(shell, command, b"xyz\r\n", end=True)
    assert client.get_command_output(shell, command) == (b"xyz\r\n", b"", 0)
    client.close_shell(shell)


def test_working_folder_and_environment(client, guest: Guest):
    (guest.c / "Program Files/Thing").mkdir()
    shell = client.open_shell(
        working_directory="%SystemDrive%\\program files", env_vars={"WHO": "a<b>&c"}
    )
    command = client.run_command(shell, "cd & set WHO")
    out, _, _ = client.get_command_output(shell, command)
    assert out == b"C:\\program files\r\nWHO=a<b>&c\r\n"
    # Commands do not share what they change.
    command = client.run_command(shell, "set WHO=x& cd \\ & cd")
    client.get_command_output(shell, command)
    command = client.run_command(shell, "set WHO")
    assert client.get_command_output(shell, command)[0] == b"WHO=a<b>&c\r\n"


def fault(call) -> WSManFaultError:
    with pytest.raises(WSManFaultError) as caught:
        call()
    return caught.value


def test_unknown_shell(client):
    error = fault(lambda: client.run_command("0" * 8, "ver"))
    assert error.wsman_fault_code == 2150858843
    assert error.fault_subcode == "w:InvalidSelectors"
    assert error.code == 500


def test_deleted_shell_and_unknown_command(client):
    shell = client.open_shell()
    error = fault(lambda: client.get_command_output_raw(shell, "no-such-command"))
    assert error.wsman_fault_code == 2150858843
    client.close_shell(shell, close_session=False)
    assert fault(lambda: client.close_shell(shell)).wsman_fault_code == 2150858843


def test_oversized_envelope(client):
    shell = client.open_shell()
    command = client.run_command(shell, "findstr x")
    error = fault(lambda: client.send_command_input(shell, command, b"y" * 130000))
    assert error.fault_subcode == "w:EncodingLimit"


def test_large_output_is_split(client, guest: Guest):
    data = bytes(range(256)) * 2000
    (guest.c / "pvlab/big.bin").write_bytes(data)
    shell = client.open_shell()
    command = client.run_command(shell, "type C:\\pvlab\\big.bin")
    assert client.get_command_output(shell, command) == (data, b"", 0)


def test_signal_ends_a_command(client, guest: Guest):
    shell = client.open_shell()
    command = client.run_command(shell, "findstr x")
    client.cleanup_command(shell, command)
    error = fault(lambda: client.get_command_output_raw(shell, command))
    assert error.wsman_fault_code == 2150858843
    client.close_shell(shell, close_session=False)


def test_closing_a_shell_ends_its_commands(client, guest: Guest):
    shell = client.open_shell()
    client.run_command(shell, "findstr x")
    client.close_shell(shell, close_session=False)
    assert all(process.ended for process in guest.system.processes.running())


def test_many_clients_at_once(server):
    failures = []

    def work(number: int) -> None:
        client = protocol(server.port)
        shell = client.open_shell()
        for turn in range(3):
            command = client.run_command(shell, f"echo {number}.{turn}")
            if client.get_command_output(shell, command)[0] != f"{number}.{turn}\r\n".encode():
                failures.append(number)
            client.cleanup_command(shell, command)
        client.close_shell(shell)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_shell_quota(tmp_path):
    from standin import winrm as endpoint

    server = endpoint.start(Guest(tmp_path, max_shells=1).system)
    client = protocol(server.port)
    shell = client.open_shell()
    assert fault(client.open_shell).wsman_fault_code == 2150859174
    client.close_shell(shell, close_session=False)
    client.close_shell(client.open_shell())
    server.close()


def test_idle_shell_is_dropped(client):
    shell = client.open_shell(idle_timeout="PT0.000S")
    assert fault(lambda: client.run_command(shell, "ver")).wsman_fault_code == 2150858843


def post(port, body, headers=None, path="/wsman", method="POST"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    login = base64.b64encode(f"Administrator:{PASSWORD}".encode()).decode()
    connection.request(
        method,
        path,
        body,
        {
            "Content-Type": "application/soap+xml;charset=UTF-8",
            "Authorization": f"Basic {login}",
            **(headers or {}),
        },
    )
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


IDENTIFY = (
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:i='
    '"http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"><s:Header/>'
    "<s:Body><i:Identify/></s:Body></s:Envelope>"
)


def test_identify_names_the_standin(server):
    response, text = post(server.port, IDENTIFY)
    assert response.status == 200
    assert "<wsmid:ProductVendor>pvlab stand-in</wsmid:ProductVendor>" in text
    response, text = post(
        server.port, IDENTIFY, {"Authorization": "", "WSMANIDENTIFY": "unauthenticated"}
    )
    assert response.status == 200


def test_unauthenticated_request(server):
    response, text = post(server.port, IDENTIFY, {"Authorization": "Basic !!"})
    assert response.status == 401
    assert response.getheader("WWW-Authenticate") == 'Basic realm="WSMAN"'
    assert text == ""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"path": "/other"}, 404),
        ({"method": "GET"}, 405),
        ({"headers": {"Content-Type": "text/plain"}}, 415),
        ({"headers": {"Content-Length": "x"}}, 400),
        ({"headers": {"Content-Length": "99999999999"}}, 413),
    ],
)
def test_bad_http(server, arguments, status):
    assert post(server.port, IDENTIFY, **arguments)[0].status == status


def test_document_type_is_refused(server):
    body = '<!DOCTYPE x [<!ENTITY a "b">]>' + IDENTIFY
    response, text = post(server.port, body)
    assert response.status == 500
    assert 'Code="2150858817"' in text


@pytest.mark.parametrize(
    ("action", "resource", "code"),
    [
        ("urn:nothing", "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd", 2150858753),
        (
            "http://schemas.xmlsoap.org/ws/2004/09/transfer/Create",
            "http://schemas.microsoft.com/powershell/Microsoft.PowerShell",
            2150858752,
        ),
    ],
)
def test_unknown_action_and_resource(client, action, resource, code):
    import xmltodict

    request = {"env:Envelope": client.build_wsman_header(action, resource)}
    request["env:Envelope"]["env:Body"] = {}
    error = fault(lambda: client.send_message(xmltodict.unparse(request)))
    assert error.wsman_fault_code == code


def test_keep_alive_and_chunked_bodies(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    login = base64.b64encode(f"Administrator:{PASSWORD}".encode()).decode()
    headers = {"Content-Type": "application/soap+xml", "Authorization": f"Basic {login}"}
    for _ in range(2):
        half = len(IDENTIFY) // 2
        parts = iter([IDENTIFY[:half].encode(), IDENTIFY[half:].encode()])
        connection.request("POST", "/wsman", parts, headers, encode_chunked=True)
        response = connection.getresponse()
        assert response.status == 200
        response.read()
    connection.close()
