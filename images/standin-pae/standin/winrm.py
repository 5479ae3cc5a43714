"""WinRM 2.0's listener: WS-Management shells over HTTP/1.1 with Basic authentication.

Sources: MS-WSMV sections 3.1.4.1 (shell protocol: Create, Command, Send, Receive, Signal,
Delete) and 2.2.4 (message elements); DMTF DSP0226 sections 5 (addressing), 6 (wsman control
headers) and 14 (faults), DSP0226 section 11 and MS-WSMV 3.1.4.1.2 (Identify); RFC 9112
(HTTP/1.1), RFC 7617 (Basic). Fault codes are those of the SDK's wsmerror.h.

Each connection has a thread; a reply leaves in one write. The server holds a single open
socket per client for as long as the client keeps it alive.
"""

import base64
import binascii
import errno
import os
import socket
import sys
import threading
import time
from _operator import _compare_digest  # hmac.compare_digest without hashlib's import cost
from contextlib import suppress

from standin import PRODUCT, VERSION, soap
from standin.shells import CONTROL_C_EXIT, Shells
from standin.soap import (
    NS_ENUMERATION,
    NS_IDENTITY,
    NS_SHELL,
    NS_TRANSFER,
    NS_WSMAN,
    FaultError,
)

RESOURCE_CMD = NS_SHELL + "/cmd"
RESOURCE_SHELL = NS_SHELL
ACTION_ENUMERATE = NS_ENUMERATION + "/Enumerate"
ACTION_CREATE = NS_TRANSFER + "/Create"
ACTION_DELETE = NS_TRANSFER + "/Delete"
STATE_DONE = NS_SHELL + "/CommandState/Done"
STATE_RUNNING = NS_SHELL + "/CommandState/Running"
SIGNALS = {
    NS_SHELL + "/signal/terminate": "terminate",
    NS_SHELL + "/signal/ctrl_c": "ctrl_c",
    NS_SHELL + "/signal/ctrl_break": "ctrl_c",
}

#: Bytes of an envelope that are not stream data in a ReceiveResponse, generously.
RECEIVE_OVERHEAD = 3000

#: Smallest w:MaxEnvelopeSize a client may ask for (DSP0226 section 6.2, R6.2-1: 8192).
SMALLEST_ENVELOPE = 8192

#: Longest request header accepted, as http.sys has it (MaxRequestBytes, 16 KB).
MAX_HEADER = 16384

_STATUS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
}


def _shell_missing(identifier):
    return FaultError(
        True,
        "w:InvalidSelectors",
        2150858843,
        "The WS-Management service cannot process the request because the request contained "
        "invalid selectors for the resource.",
        f"The request for the Windows Remote Shell with ShellId {identifier} failed because the "
        "shell was not found on the server. Possible causes are: the specified ShellId is "
        "incorrect or the shell no longer exists on the server. Provide the correct ShellId or "
        "create a new shell and retry the operation.",
        "UnexpectedSelectors",
    )


def _command_missing():
    return FaultError(
        True,
        "w:InvalidSelectors",
        2150858843,
        "The WS-Management service cannot process the request because the request contained "
        "invalid selectors for the resource.",
        "The Windows Remote Shell received a request to perform an operation on a command "
        "identifier that does not exist. Either the command has completed execution or the "
        "client specified an invalid command identifier.",
    )


def _timed_out():
    return FaultError(
        False,
        "w:TimedOut",
        2150858793,
        "The WS-Management service cannot complete the operation within the time specified in "
        "OperationTimeout.",
    )


def _bad_parameter(message):
    return FaultError(True, "w:InvalidParameter", 87, "The parameter is incorrect.", message)


class _HttpError(Exception):
    """A request that ends in a bare HTTP status; the connection is closed when ``fatal``."""

    def __init__(self, status, headers="", fatal=False):
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.fatal = fatal


class Server:
    """The listener.

    Args:
        system: the ``standin.system.System`` whose commands it runs.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(self, system):
        self._system = system
        self._config = system.config
        self._shells = Shells(system)
        self._credentials = f"{self._config.user.lower()}:{self._config.password}".encode()
        self._accepted = ""
        self._socket = socket.create_server((self._config.listen, self._config.port), backlog=32)
        self.port = self._socket.getsockname()[1]
        self._actions = {
            ACTION_CREATE: self._create,
            ACTION_ENUMERATE: self._enumerate,
            ACTION_DELETE: self._delete,
            NS_SHELL + "/Command": self._command,
            NS_SHELL + "/Send": self._send,
            NS_SHELL + "/Receive": self._receive,
            NS_SHELL + "/Signal": self._signal,
        }

    def serve(self):
        """Accept connections until ``close``."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError as error:
                if error.errno in (errno.EBADF, errno.EINVAL):
                    return
                raise
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A client that was cloned away or lost power never says goodbye.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            threading.Thread(
                target=self._talk, args=(connection,), name="connection", daemon=True
            ).start()

    def close(self):
        """Stop listening."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    # HTTP

    def _talk(self, connection):
        """Serve one connection until either side closes it."""
        buffer = bytearray()
        with connection:
            try:
                while self._exchange(connection, buffer):
                    pass
            except OSError:
                pass  # the client went away

    def _exchange(self, connection, buffer):
        """One request and its reply.

        Returns:
            Whether the connection stays open.
        """
        try:
            head = _read_head(connection, buffer)
            if head is None:
                return False
            method, path, version, headers = head
            body = _read_body(connection, buffer, headers)
            keep = headers.get("connection", "").lower() != "close" and version != "HTTP/1.0"
            status, extra, content = self._answer(method, path, headers, body)
        except _HttpError as error:
            status, extra, content = error.status, error.headers, b""
            keep = not error.fatal
        kind = "Content-Type: application/soap+xml;charset=UTF-8\r\n" if content else ""
        connection.sendall(
            (
                f"HTTP/1.1 {status} {_STATUS[status]}\r\n{kind}{extra}"
                f"Server: pvlab-standin\r\nContent-Length: {len(content)}\r\n"
                f"{'' if keep else 'Connection: close' + chr(13) + chr(10)}\r\n"
            ).encode("latin-1")
            + content
        )
        return keep

    def _answer(self, method, path, headers, body):
        """(status, extra headers, content) of a request."""
        if path.split("?", 1)[0].rstrip("/").lower() != "/wsman":
            raise _HttpError(404)
        if method != "POST":
            raise _HttpError(405, "Allow: POST\r\n")
        anonymous = headers.get("wsmanidentify", "").lower() == "unauthenticated"
        if not anonymous and not self._authorised(headers.get("authorization", "")):
            raise _HttpError(401, 'WWW-Authenticate: Basic realm="WSMAN"\r\n')
        if "soap+xml" not in headers.get("content-type", "").lower():
            raise _HttpError(415)
        request = None
        try:
            try:
                envelope = soap.parse(body)
            except soap.BadEnvelopeError as error:
                raise FaultError(
                    True,
                    "w:SchemaValidationError",
                    2150858817,
                    "The WS-Management service cannot process the request because the XML is "
                    "invalid.",
                    str(error),
                ) from error
            request = soap.Request(envelope)
            if request.body.find(NS_IDENTITY + "}Identify") is not None:
                return 200, "", _identify()
            if anonymous:
                raise _HttpError(401, 'WWW-Authenticate: Basic realm="WSMAN"\r\n')
            return 200, "", self._operation(request, len(body))
        except FaultError as error:
            return 500, "", soap.fault(request, error, self._config.computer_name)

    def _authorised(self, header):
        """Whether an Authorization header holds the right user and password."""
        if header and _compare_digest(header.encode(), self._accepted.encode()):
            return True
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(value.strip()).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        # Windows takes the name with or without the machine's, in any case.
        given = f"{user.rpartition(chr(92))[2].lower()}:{password}".encode()
        if not _compare_digest(given, self._credentials):
            return False
        self._accepted = header
        return True

    # WS-Management

    def _operation(self, request, size):
        """Check the header and run the action."""
        limit = self._config.max_envelope_size
        if size > limit:
            raise FaultError(
                True,
                "w:EncodingLimit",
                2150858839,
                "The WS-Management service cannot process the request because the size of the "
                f"request exceeded the configured MaxEnvelopeSize quota of {limit}.",
                detail="MaxEnvelopeSizeExceeded",
            )
        if request.max_envelope is not None and request.max_envelope < SMALLEST_ENVELOPE:
            raise FaultError(
                True,
                "w:EncodingLimit",
                2150858801,
                "The WS-Management service cannot process the request. The MaxEnvelopeSize value "
                f"is too small: it must be at least {SMALLEST_ENVELOPE}.",
                detail="MinimumEnvelopeLimit",
            )
        run = self._actions.get(request.action)
        if run is None:
            raise FaultError(
                True,
                "a:ActionNotSupported",
                2150858753,
                "The action is not supported by the service.",
                "The WS-Management service cannot process the request. The WS-Addressing action "
                "URI is invalid.",
            )
        listing = request.action == ACTION_ENUMERATE
        if request.resource != (RESOURCE_SHELL if listing else RESOURCE_CMD):
            raise FaultError(
                True,
                "a:DestinationUnreachable",
                2150858752,
                "The WS-Management service cannot process the request. The service cannot find "
                "the resource identified by the resource URI and selectors.",
                detail="InvalidResourceURI",
            )
        return run(request)

    def _shell(self, request):
        identifier = request.selectors.get("ShellId", "")
        shell = self._shells.get(identifier)
        if shell is None:
            raise _shell_missing(identifier)
        return shell

    def _create(self, request):
        """wxf:Create: a new shell (MS-WSMV 3.1.4.5.2)."""
        node = request.body.find(NS_SHELL + "}Shell")
        if node is None:
            raise _bad_parameter("The body has no Shell element.")
        env = {}
        variables = node.find(NS_SHELL + "}Environment")
        for variable in variables.children if variables is not None else ():
            env[variable.attributes.get("Name", "")] = variable.text
        idle = soap.duration(node.value(NS_SHELL + "}IdleTimeOut"), self._config.idle_timeout_s)
        folder = node.value(NS_SHELL + "}WorkingDirectory")
        code_page = request.options.get("WINRS_CODEPAGE", "")
        code_page = int(code_page) if code_page.isdigit() else 437
        shell = self._shells.open(env, self._system.expand(folder), idle, code_page)
        if shell is None:
            raise FaultError(
                False,
                "w:QuotaLimit",
                2150859174,
                "The WS-Management service cannot process the request. The maximum number of "
                "concurrent shells for this user has been exceeded.",
            )
        return soap.reply(
            request,
            NS_TRANSFER + "/CreateResponse",
            f"<x:ResourceCreated><a:Address>http://{escape_host(self._config)}/wsman</a:Address>"
            f"<a:ReferenceParameters><w:ResourceURI>{RESOURCE_CMD}</w:ResourceURI>"
            f'<w:SelectorSet><w:Selector Name="ShellId">{shell.id}</w:Selector></w:SelectorSet>'
            "</a:ReferenceParameters></x:ResourceCreated>",
        )

    def _enumerate(self, request):
        """wsen:Enumerate of the shells, in one answer (DSP0226 section 8.2.3; MS-WSMV 3.1.4.4)."""
        items = "".join(
            f"<rsp:Shell><rsp:ShellId>{shell}</rsp:ShellId>"
            f"<rsp:Owner>{soap.escape(self._config.user)}</rsp:Owner></rsp:Shell>"
            for shell in self._shells.ids()
        )
        return soap.reply(
            request,
            NS_ENUMERATION + "/EnumerateResponse",
            f'<n:EnumerateResponse xmlns:n="{NS_ENUMERATION}"><n:EnumerationContext/>'
            f"<w:Items>{items}</w:Items><w:EndOfSequence/></n:EnumerateResponse>",
        )

    def _delete(self, request):
        """wxf:Delete: end a shell and what runs in it."""
        identifier = request.selectors.get("ShellId", "")
        if not self._shells.close(identifier):
            raise _shell_missing(identifier)
        return soap.reply(request, NS_TRANSFER + "/DeleteResponse", "")

    def _command(self, request):
        """rsp:Command: start a command line (MS-WSMV 3.1.4.11)."""
        shell = self._shell(request)
        node = request.body.find(NS_SHELL + "}CommandLine")
        command = node.find(NS_SHELL + "}Command") if node is not None else None
        if command is None or not command.text.strip():
            raise _bad_parameter("The body has no Command element.")
        words = [command.text]
        words += [child.text for child in node.children if child.name == NS_SHELL + "}Arguments"]
        started = shell.start(" ".join(words), node.attributes.get("CommandId", "").upper())
        return soap.reply(
            request,
            NS_SHELL + "/CommandResponse",
            f"<rsp:CommandResponse><rsp:CommandId>{soap.escape(started.id)}</rsp:CommandId>"
            "</rsp:CommandResponse>",
        )

    def _running(self, shell, identifier):
        command = shell.commands.get(identifier.upper())
        if command is None:
            raise _command_missing()
        return command

    def _send(self, request):
        """rsp:Send: input for a command (MS-WSMV 3.1.4.12)."""
        shell = self._shell(request)
        node = request.body.find(NS_SHELL + "}Send")
        for stream in node.children if node is not None else ():
            command = self._running(shell, stream.attributes.get("CommandId", ""))
            if stream.attributes.get("Name") != "stdin":
                raise _bad_parameter("The only input stream is stdin.")
            try:
                data = base64.b64decode(stream.text)
            except binascii.Error as error:
                raise _bad_parameter("The stream is not base64.") from error
            if command.stdin.ended and command.exit_code is None:
                raise FaultError(
                    False,
                    "w:InternalError",
                    232,
                    "The pipe is being closed.",
                )
            command.stdin.write(data)
            if stream.attributes.get("End", "").lower() in ("true", "1"):
                command.stdin.close()
        return soap.reply(request, NS_SHELL + "/SendResponse", "<rsp:SendResponse/>")

    def _receive(self, request):
        """rsp:Receive: output and state of a command (MS-WSMV 3.1.4.14)."""
        shell = self._shell(request)
        desired = request.body.find(NS_SHELL + "}Receive", NS_SHELL + "}DesiredStream")
        if desired is None:
            raise _bad_parameter("The body has no DesiredStream element.")
        command = self._running(shell, desired.attributes.get("CommandId", ""))
        envelope = min(
            request.max_envelope or self._config.max_envelope_size, self._config.max_envelope_size
        )
        limit = (envelope - RECEIVE_OVERHEAD) // 4 * 3  # base64 makes four bytes of three
        timeout = min(request.timeout_s, self._config.max_timeout_s)
        if self._system.quirks.breaks_receive(time.monotonic() - command.started):
            raise _HttpError(500)
        if self._system.quirks.times_out():
            raise _timed_out()
        result = command.receive(timeout, self._config.coalesce_s, limit)
        shell.used = max(shell.used, time.monotonic())
        if result is None:
            raise _timed_out()
        stdout, stderr, code = result
        identifier = soap.escape(command.id)
        parts = ["<rsp:ReceiveResponse>"]
        for name, data in (("stdout", stdout), ("stderr", stderr)):
            if data:
                text = binascii.b2a_base64(data, newline=False).decode("ascii")
                parts.append(
                    f'<rsp:Stream Name="{name}" CommandId="{identifier}">{text}</rsp:Stream>'
                )
        if code is None:
            parts.append(f'<rsp:CommandState CommandId="{identifier}" State="{STATE_RUNNING}"/>')
        else:
            parts.extend(
                f'<rsp:Stream Name="{name}" CommandId="{identifier}" End="true"></rsp:Stream>'
                for name in ("stdout", "stderr")
            )
            parts.append(
                f'<rsp:CommandState CommandId="{identifier}" State="{STATE_DONE}">'
                f"<rsp:ExitCode>{code}</rsp:ExitCode></rsp:CommandState>"
            )
        parts.append("</rsp:ReceiveResponse>")
        return soap.reply(request, NS_SHELL + "/ReceiveResponse", "".join(parts))

    def _signal(self, request):
        """rsp:Signal: end a command, or clean up after one (MS-WSMV 3.1.4.13)."""
        shell = self._shell(request)
        node = request.body.find(NS_SHELL + "}Signal")
        if node is None:
            raise _bad_parameter("The body has no Signal element.")
        action = SIGNALS.get(node.value(NS_SHELL + "}Code"))
        if action is None:
            raise _bad_parameter("The signal code is not known.")
        identifier = node.attributes.get("CommandId", "").upper()
        command = self._running(shell, identifier)
        if action == "terminate":
            command.process.end()
            shell.commands.pop(identifier, None)
        else:
            command.process.end(CONTROL_C_EXIT)
        return soap.reply(request, NS_SHELL + "/SignalResponse", "<rsp:SignalResponse/>")


def escape_host(config):
    """The address that a Create reply names."""
    return f"{soap.escape(config.computer_name)}:{config.port}"


def _identify():
    """The reply to wsmid:Identify (DSP0226 section 11): says that this is the stand-in."""
    return (
        f'<s:Envelope xml:lang="en-US" xmlns:s="{soap.NS_SOAP}"><s:Header/><s:Body>'
        f'<wsmid:IdentifyResponse xmlns:wsmid="{NS_IDENTITY}">'
        f"<wsmid:ProtocolVersion>{NS_WSMAN}</wsmid:ProtocolVersion>"
        f"<wsmid:ProductVendor>{PRODUCT}</wsmid:ProductVendor>"
        f"<wsmid:ProductVersion>OS: {VERSION} SP: 2.0 Stack: 2.0</wsmid:ProductVersion>"
        "</wsmid:IdentifyResponse></s:Body></s:Envelope>"
    ).encode()


def _fill(connection, buffer):
    """Receive more bytes; whether there were any."""
    data = connection.recv(65536)
    buffer += data
    return bool(data)


def _read_head(connection, buffer):
    """Request line and headers, or ``None`` when the client has closed.

    Returns:
        (method, path, version, headers by lower-case name).
    """
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        if len(buffer) > MAX_HEADER:
            raise _HttpError(400, fatal=True)
        if not _fill(connection, buffer):
            return None
    lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    del buffer[: end + 4]
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _HttpError(400, fatal=True)
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise _HttpError(400, fatal=True)
        headers[name.strip().lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    return words[0], words[1], words[2], headers


#: No request of the contract is larger; http.sys would also stop one at some size.
MAX_BODY = 4 << 20


def _read_body(connection, buffer, headers):
    """The request's body.

    Raises:
        ConnectionError: the client closed in the middle.
    """
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _read_chunks(connection, buffer)
    text = headers.get("content-length", "0")
    if not text.isdigit():
        raise _HttpError(400, fatal=True)
    length = int(text)
    if length > MAX_BODY:
        raise _HttpError(413, fatal=True)
    return _take(connection, buffer, length)


def _take(connection, buffer, length):
    while len(buffer) < length:
        if not _fill(connection, buffer):
            raise ConnectionError("closed in the middle of a request")
    data = bytes(buffer[:length])
    del buffer[:length]
    return data


def _read_line(connection, buffer):
    while (end := buffer.find(b"\r\n")) < 0:
        if not _fill(connection, buffer):
            raise ConnectionError("closed in the middle of a request")
    line = bytes(buffer[:end])
    del buffer[: end + 2]
    return line


def _read_chunks(connection, buffer):
    """A chunked body (RFC 9112 section 7.1)."""
    data = bytearray()
    while True:
        try:
            size = int(_read_line(connection, buffer).split(b";")[0], 16)
        except ValueError as error:
            raise _HttpError(400, fatal=True) from error
        if size == 0:
            break
        data += _take(connection, buffer, size)
        _take(connection, buffer, 2)
        if len(data) > MAX_BODY:
            raise _HttpError(413, fatal=True)
    while _read_line(connection, buffer):
        pass  # trailers
    return bytes(data)


def start(system):
    """A server that is listening and served by a thread of its own."""
    server = Server(system)
    threading.Thread(target=server.serve, name="winrm", daemon=True).start()
    return server


def announce(path, text):
    """Write one line to the console; a console that is not there is no error."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        print(text, file=sys.stderr, flush=True)
        return
    try:
        os.write(fd, (text + "\r\n").encode())
    finally:
        os.close(fd)
