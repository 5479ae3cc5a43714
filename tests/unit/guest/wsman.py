"""A WS-Management server for tests: just enough of MS-WSMV for the channel, on loopback."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
NS = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://schemas.xmlsoap.org/ws/2004/08/addressing",
    "w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
    "rsp": SHELL,
}
NO_SHELL = 2150858843
TIMED_OUT = 2150858793

Answer = tuple[str, str, int]
Responder = Callable[[str, bytes], Answer]


@dataclass
class Running:
    line: str
    stdin: bytes = b""
    stdin_ended: bool = False
    polls: int = 0


@dataclass
class WsmanServer:
    """Runs command lines through a Python function.

    ``actions`` lists every request as ``Create``, ``Command``, ... in order.
    """

    respond: Responder
    password: str = "secret"
    polls_before_done: int = 0
    actions: list[str] = field(default_factory=list)
    envelopes: list[int] = field(default_factory=list)
    shells: set[str] = field(default_factory=set)
    commands: dict[str, Running] = field(default_factory=dict)
    connections: int = 0
    break_on: str = ""
    breakage: str = ""

    def __post_init__(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                server.connections += 1

            def do_POST(self) -> None:
                server.handle(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        self._http.block_on_close = True
        self.released = threading.Event()
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    def stop(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def reboot(self) -> None:
        self.shells.clear()
        self.commands.clear()

    def handle(self, http: BaseHTTPRequestHandler) -> None:
        body = http.rfile.read(int(http.headers["Content-Length"]))
        self.envelopes.append(len(body))
        expected = base64.b64encode(f"Administrator:{self.password}".encode()).decode()
        if http.headers.get("Authorization") != f"Basic {expected}":
            self.reply(http, 401, b"")
            return
        root = ET.fromstring(body)  # noqa: S314 - the tests' own client
        action = root.findtext(".//a:Action", "", NS).rpartition("/")[2]
        self.actions.append(action)
        if self.break_on == action:
            self.broken(http)
            return
        message = root.findtext(".//a:MessageID", "", NS)
        selector = root.find(".//w:Selector", NS)
        shell = selector.text if selector is not None else None
        if action != "Create" and shell not in self.shells:
            self.fault(http, NO_SHELL, "w:InvalidSelectors", "The shell was not found.")
            return
        self.reply(http, 200, self.envelope(message, getattr(self, f"on_{action.lower()}")(root)))

    def broken(self, http: BaseHTTPRequestHandler) -> None:
        if self.breakage == "hang":
            self.released.wait(30)
            http.close_connection = True
        elif self.breakage == "drop":
            http.close_connection = True
        elif self.breakage == "reboot":
            self.reboot()
            self.fault(http, NO_SHELL, "w:InvalidSelectors", "The shell was not found.")
        elif self.breakage == "no command":
            text = "An operation on a command identifier that does not exist."
            self.fault(http, NO_SHELL, "w:InvalidSelectors", text)
        elif self.breakage == "fault":
            self.fault(http, 2150858999, "w:QuotaLimit", "Too many shells.\n Close some.")
        elif self.breakage == "timeout":
            self.fault(http, TIMED_OUT, "w:TimedOut", "Nothing happened.")
        elif self.breakage == "html":
            self.reply(http, 200, b"<html>router</html>")
        else:
            self.reply(http, int(self.breakage), b"")

    def on_create(self, root: ET.Element) -> str:
        shell = str(uuid.uuid4()).upper()
        self.shells.add(shell)
        return f'<w:SelectorSet><w:Selector Name="ShellId">{shell}</w:Selector></w:SelectorSet>'

    def on_command(self, root: ET.Element) -> str:
        assert root.find(".//w:Option[@Name='WINRS_SKIP_CMD_SHELL']", NS).text == "FALSE"
        command = str(uuid.uuid4()).upper()
        self.commands[command] = Running(root.findtext(".//rsp:Command", "", NS))
        return (
            f"<rsp:CommandResponse><rsp:CommandId>{command}</rsp:CommandId></rsp:CommandResponse>"
        )

    def on_send(self, root: ET.Element) -> str:
        stream = root.find(".//rsp:Stream", NS)
        running = self.commands[stream.attrib["CommandId"]]
        running.stdin += base64.b64decode(stream.text or "")
        running.stdin_ended = stream.attrib["End"] == "true"
        return "<rsp:SendResponse/>"

    def on_receive(self, root: ET.Element) -> str:
        command = root.find(".//rsp:DesiredStream", NS).attrib["CommandId"]
        running = self.commands[command]
        running.polls += 1
        if running.polls <= self.polls_before_done:
            return (
                f'<rsp:ReceiveResponse><rsp:CommandState CommandId="{command}" '
                f'State="{SHELL}/CommandState/Running"/></rsp:ReceiveResponse>'
            )
        out, err, code = self.respond(running.line, running.stdin)
        streams = "".join(
            f'<rsp:Stream Name="{name}" CommandId="{command}">'
            f"{base64.b64encode(text.encode('cp437')).decode()}</rsp:Stream>"
            for name, text in (("stdout", out), ("stderr", err))
            if text
        )
        return (
            f"<rsp:ReceiveResponse>{streams}"
            f'<rsp:CommandState CommandId="{command}" State="{SHELL}/CommandState/Done">'
            f"<rsp:ExitCode>{code}</rsp:ExitCode></rsp:CommandState></rsp:ReceiveResponse>"
        )

    def on_signal(self, root: ET.Element) -> str:
        del self.commands[root.find(".//rsp:Signal", NS).attrib["CommandId"]]
        return "<rsp:SignalResponse/>"

    def on_delete(self, root: ET.Element) -> str:
        self.shells.discard(root.findtext(".//w:Selector", "", NS))
        return ""

    def envelope(self, message: str, body: str) -> bytes:
        names = " ".join(f'xmlns:{key}="{value}"' for key, value in NS.items())
        return (
            f"<s:Envelope {names}><s:Header><a:RelatesTo>{message}</a:RelatesTo></s:Header>"
            f"<s:Body>{body}</s:Body></s:Envelope>"
        ).encode()

    def fault(self, http: BaseHTTPRequestHandler, code: int, subcode: str, text: str) -> None:
        body = (
            f"<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>{subcode}"
            f"</s:Value></s:Subcode></s:Code><s:Reason><s:Text>{text}</s:Text></s:Reason>"
            "<s:Detail><f:WSManFault "
            'xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" '
            f'Code="{code}"/></s:Detail></s:Fault>'
        )
        self.reply(http, 500, self.envelope("", body))

    def reply(self, http: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        http.send_response(status)
        http.send_header("Content-Type", "application/soap+xml;charset=UTF-8")
        http.send_header("Content-Length", str(len(body)))
        http.end_headers()
        http.wfile.write(body)


class FakeCmd:
    """A command line with a few files: what the lab's nouns send, and no more.

    Args:
        certutil_hashes: whether its certutil knows -hashfile.
    """

    def __init__(self, *, certutil_hashes: bool = True) -> None:
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = {"C:"}
        self.lines: list[str] = []
        self.programs: dict[str, Callable[[str], Answer]] = {}
        self.certutil_hashes = certutil_hashes
        self.corrupt = False

    def __call__(self, line: str, stdin: bytes) -> Answer:
        self.lines.append(line)
        out, err, code = "", "", 0
        for step in re.split(r" (?=&& |& )", line):
            glue, _, command = step.partition(" ") if step.startswith("&") else ("&", "", step)
            if glue == "&&" and code != 0:
                continue
            more_out, more_err, code = self.step(command.strip(), stdin)
            out += more_out
            err += more_err
        return out, err, code

    def step(self, command: str, stdin: bytes) -> Answer:
        bare, quiet = re.subn(r"\s*2>(nul|&1)", "", command)
        match = re.fullmatch(r'(.*?)\s*(>>|>)\s*("[^"]*"|\S+)', bare.strip())
        out, err, code = self.program(match[1] if match else bare.strip(), stdin)
        err = "" if quiet else err
        if match and (target := match[3].strip('"')).lower() != "nul":
            if target.rpartition("\\")[0] not in self.folders:
                return "", "The system cannot find the path specified.\r\n", 1
            old = self.files.get(target, b"") if match[2] == ">>" else b""
            self.files[target] = old + out.encode("cp437")
        return "" if match else out, err, code

    def program(self, command: str, stdin: bytes) -> Answer:
        words = [a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', command)]
        name = words[0].lower()
        if name in self.programs:
            return self.programs[name](command)
        handler = getattr(self, f"do_{name}", None)
        if handler is None:
            return (
                "",
                f"'{words[0]}' is not recognized as an internal or external command,\r\n"
                "operable program or batch file.\r\n",
                1,
            )
        return handler(words[1:], stdin)

    def do_rem(self, words: list[str], stdin: bytes) -> Answer:
        return "", "", 0

    def do_echo(self, words: list[str], stdin: bytes) -> Answer:
        return " ".join(words) + "\r\n", "", 0

    def do_md(self, words: list[str], stdin: bytes) -> Answer:
        if words[0] in self.folders:
            return "", "A subdirectory or file already exists.\r\n", 1
        parts = words[0].split("\\")
        self.folders |= {"\\".join(parts[: i + 1]) for i in range(len(parts))}
        return "", "", 0

    def do_del(self, words: list[str], stdin: bytes) -> Answer:
        self.files.pop(words[-1], None)
        return "", "", 0

    def do_copy(self, words: list[str], stdin: bytes) -> Answer:
        assert words[:2] == ["/y", "nul"]
        self.files[words[2]] = b""
        return "        1 file(s) copied.\r\n", "", 0

    def do_move(self, words: list[str], stdin: bytes) -> Answer:
        source, target = words[-2:]
        if source not in self.files:
            return "", "The system cannot find the file specified.\r\n", 1
        self.files[target] = self.files.pop(source)
        return "        1 file(s) moved.\r\n", "", 0

    def do_findstr(self, words: list[str], stdin: bytes) -> Answer:
        return stdin.decode("cp437"), "", 0

    def do_type(self, words: list[str], stdin: bytes) -> Answer:
        if words[0] not in self.files:
            return "", "The system cannot find the file specified.\r\n", 1
        return self.files[words[0]].decode("cp437"), "", 0

    def do_certutil(self, words: list[str], stdin: bytes) -> Answer:
        verb, names = words[0], [word for word in words[1:] if word != "-f"]
        missing = (
            f"CertUtil: {verb} command FAILED: 0x80070002 (WIN32: 2)\r\n"
            "CertUtil: The system cannot find the file specified.\r\n"
        )
        if verb == "-hashfile" and not self.certutil_hashes:
            return "CertUtil: Unknown arg: -hashfile\r\n", "", 1
        data = self.files.get(names[0])
        if data is None:
            return missing, "", 1
        if verb == "-hashfile":
            digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            pairs = " ".join(digest[i : i + 2] for i in range(0, 40, 2))
            return (
                (
                    f"SHA1 hash of file {names[0]}:\r\n{pairs}\r\n"
                    "CertUtil: -hashfile command completed successfully.\r\n"
                ),
                "",
                0,
            )
        if names[1].rpartition("\\")[0] not in self.folders:
            return missing.replace("file", "path"), "", 1
        if verb == "-decode":
            self.files[names[1]] = base64.b64decode(data) + (b"!" if self.corrupt else b"")
            return "CertUtil: -decode command completed successfully.\r\n", "", 0
        if not data:
            return f"CertUtil: {verb} command FAILED: 0x800703ee (WIN32: 1006)\r\n", "", 1
        text = base64.encodebytes(data).replace(b"\n", b"\r\n")
        self.files[names[1]] = (
            b"-----BEGIN CERTIFICATE-----\r\n" + text + b"-----END CERTIFICATE-----\r\n"
        )
        return "Input Length = 3\r\nOutput Length = 9\r\n", "", 0
