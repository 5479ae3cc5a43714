"""Commands in the guest over WinRM, with few round trips and no endless waits.

A guest under test runs inside an emulated host, so every HTTP request costs tens of
milliseconds of emulated CPU. One shell stays open on one keep-alive connection, and a
finished command's clean-up is put off, which leaves two requests a command: Command and
Receive (MS-WSMV, shell messages).
"""

from __future__ import annotations

import binascii
import contextlib
import time
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TypeVar

import requests
import xmltodict
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)
from winrm.protocol import Protocol

from lab.core.command import CommandResult
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken, PvlabError
from lab.core.journal import noun
from lab.guest.errors import GuestSilent

T = TypeVar("T")

CODE_PAGE = "cp437"
"""The shell's code page: with 65001, ``.cmd`` files silently do not run on Server 2003."""

# WSManFault code of "the shell was not found on the server"; the SOAP subcode that goes with
# it is w:InvalidSelectors (DSP0226, faults).
_SHELL_NOT_FOUND = 2150858843

# WSManFault code of "the maximum number of concurrent shells for this user has been exceeded"
# (wsmerror.h, ERROR_WSMAN_QUOTA_MAX_SHELLS_PPU in later names); WinRM 2.0 grants five.
_NO_SHELL_LEFT = 2150859174

# Shells that this process uses, by the port that leads to their guest: what else is there was
# left behind by another. Clones of one guest may give theirs the same name.
_in_use: set[tuple[int, str]] = set()

_ENUMERATION = "http://schemas.xmlsoap.org/ws/2004/09/enumeration"
_SHELLS = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"

# One report has Server 2003 answer HTTP 500, without a fault, about commands of more than 60 s.
# The command itself runs on, so it is asked about again, for so long.
_ERRORS_S = 20.0

# The same code and subcode come for a command that the shell does not know any more; only the
# detail's text tells them apart.
_COMMAND_NOT_FOUND = "command identifier that does not exist"

# WinRM 2.0 lets a user have 15 operations open and a shell run 15 processes (winrm/config,
# MaxConcurrentOperationsPerUser and MaxProcessesPerShell); a command counts until signalled.
_MAX_PENDING = 12

# WinRM 2.0 takes envelopes of 150 KiB (MaxEnvelopeSizekb). Base64 makes 108 KiB into
# 144 KiB, which leaves 6 KiB for the header.
STDIN_CHUNK = 108 * 1024

# http.sys drops a connection idle for 120 s; a command must not meet that moment, because
# nobody could tell whether it had been started.
_IDLE_LIMIT_S = 60.0

# A Receive given less time than this proves nothing by staying unanswered: the guest cannot
# be told to answer "still running" sooner than after 1 s, and is slow besides.
_PROOF_S = 3.0

# What pywinrm raises over an answer that is no WS-Management message: it looks for elements
# with next(), asserts that the answer is to its own message, and decodes what it finds.
_NOT_WINRM = (
    AssertionError,
    AttributeError,
    KeyError,
    StopIteration,
    TypeError,
    ValueError,
    binascii.Error,
    ET.ParseError,
)


@noun
class Channel:
    """A command line in one guest.

    Not thread-safe, and starts no thread. Nothing is sent before the first command.

    Args:
        host: address of the WinRM listener, usually a forwarded loopback port.
        port: its TCP port.
        username: account in the guest.
        password: its password; never shown, logged or put into an error.
        name: the guest's name, used in results and errors.
        operation_s: seconds the guest may hold one Receive while a command prints nothing.
        slack_s: seconds more before a missing HTTP answer counts as silence.
        open_s: seconds the first answer may take: a first login builds a profile.
    """

    def __init__(
        self,
        host: str,
        port: int,
        username: str,
        password: str,
        *,
        name: str = "guest",
        operation_s: float = 15.0,
        slack_s: float = 15.0,
        open_s: float = 90.0,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self._operation_s = operation_s
        self._slack_s = slack_s
        self._open_s = open_s
        # proxy and ca_trust_path None: the environment must not redirect loopback traffic.
        self._protocol = Protocol(
            endpoint=f"http://{host}:{port}/wsman",
            transport="basic",
            username=username,
            password=password,
            proxy=None,
            ca_trust_path=None,  # type: ignore[arg-type]  # documented, annotated without
            message_encryption="never",
        )
        self._shell: str | None = None
        self._pending: deque[str] = deque()
        self._last_answer: tuple[float, str] | None = None
        self._shells_lost = 0

    def __repr__(self) -> str:
        return f"Channel({self.name!r} at {self.host}:{self.port})"

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def shells_lost(self) -> int:
        """How often the guest had forgotten the shell: it rebooted, or the shell timed out."""
        return self._shells_lost

    def run(self, command: str, deadline: Deadline, *, stdin: bytes | None = None) -> CommandResult:
        """Run one command line through the guest's ``cmd``.

        Args:
            command: the line as typed at a prompt; redirections and ``&`` work.
            deadline: when to give up; the command is told to end then.
            stdin: bytes for the command's standard input, which is closed after them; None
                leaves it open and empty.

        Returns:
            The result; output decoded from code page 437, line ends as sent.

        Raises:
            GuestSilent: no HTTP answer, or the guest lost its shell after the start.
            DeadlineExpired: the guest answers but the command did not end in time.
            LabBroken: the guest refused the login or the request.
        """
        started = time.monotonic()
        if len(self._pending) >= _MAX_PENDING:
            self.flush(deadline)
        command_id = self._start(command, deadline, piped=stdin is not None)
        # From here on the command exists in the guest, whatever happens to us.
        self._pending.append(command_id)
        if stdin is not None:
            self._send(command, command_id, stdin, deadline)
        out, err, code = self._receive(command, command_id, deadline)
        return CommandResult(
            command=command,
            exit_code=code,
            stdout=out.decode(CODE_PAGE),
            stderr=err.decode(CODE_PAGE),
            seconds=time.monotonic() - started,
            where=self.name,
        )

    def wait_ready(
        self, deadline: Deadline, *, while_waiting: Callable[[], None] | None = None
    ) -> None:
        """Wait until the guest gives out a working shell.

        Args:
            deadline: when to give up.
            while_waiting: called before each try; what it raises ends the wait and passes
                through.

        Raises:
            GuestSilent, DeadlineExpired: it did not answer in time.
            LabBroken: it answers but rejects the login, or still answers with a fault at
                the deadline.
        """
        failure: list[PvlabError] = []

        def probe() -> None:
            if while_waiting is not None:
                while_waiting()
            try:
                if self._shell is None:
                    self._open(deadline)
                else:
                    self.run("rem", deadline.at_most(self._open_s))
            except LoginRejected:
                raise
            except PvlabError as error:
                # Running out of time says less than what went wrong before it did.
                if not (failure and isinstance(error, DeadlineExpired)):
                    failure[:] = [error]
                raise NotYet(error.message) from error

        try:
            wait_for(f"{self.name} to give out a shell", probe, deadline, interval=0.2)
        except DeadlineExpired:
            if failure:
                raise failure[0] from None
            raise

    def alive(self, deadline: Deadline) -> bool:
        """Whether the guest's WinRM answers anything at all before the deadline."""
        try:
            self.run("rem", deadline)
        except LabBroken:
            return True
        except PvlabError:
            return False
        return True

    def flush(self, deadline: Deadline) -> None:
        """Send the clean-ups put off so far; meant for moments when nobody waits.

        Raises:
            GuestSilent: the guest did not answer; what was not sent stays pending.
        """
        while self._pending:
            self._clean_up_one(deadline)

    def close(self, deadline: Deadline | None = None) -> None:
        """Clean up every command, delete the shell and close the connection.

        Never raises: a guest that no longer answers has nothing left to clean up.

        Args:
            deadline: for all of it together; 10 s when absent.
        """
        deadline = deadline or Deadline(10.0)
        try:
            self.flush(deadline)
            if (shell := self._shell) is not None:
                self._ask(
                    "the shell's end",
                    partial(self._protocol.close_shell, shell, close_session=False),
                    deadline,
                    self._slack_s,
                )
        except PvlabError:
            pass  # documented: closing towards a dead guest is not an error
        finally:
            self._forget_shell()
            self._protocol.transport.close_session()

    def _open(self, deadline: Deadline) -> str:
        # Said outright: with another code page than this, batch files may not run.
        request = partial(self._protocol.open_shell, codepage=int(CODE_PAGE.removeprefix("cp")))
        while True:
            try:
                shell = self._ask("a shell", request, deadline, self._open_s)
            except NoShellLeft:
                if not self._end_one_left_over(deadline):
                    raise
            else:
                break
        self._shell = shell
        _in_use.add((self.port, shell))
        return shell

    def _end_one_left_over(self, deadline: Deadline) -> bool:
        """Delete a shell that no channel of this process has; whether there was one.

        Processes that are killed leave theirs behind, and the guest keeps them for hours.
        """
        listed = self._ask("the list of shells", self._list_shells, deadline, self._open_s)
        for shell in listed:
            if (self.port, shell) in _in_use:
                continue
            lost = self._shells_lost
            with contextlib.suppress(ShellGone):  # it ended by itself
                self._ask(
                    "the end of a shell that was left over",
                    partial(self._protocol.close_shell, shell, close_session=False),
                    deadline,
                    self._open_s,
                )
            # It was never this channel's.
            self._shells_lost = lost
            return True
        return False

    def _list_shells(self) -> list[str]:
        """The ids of all shells of this user (DSP0226, 8.2.3: an optimised enumeration)."""
        header = self._protocol.build_wsman_header(
            action=f"{_ENUMERATION}/Enumerate", resource_uri=_SHELLS
        )
        body = {"n:Enumerate": {"w:OptimizeEnumeration": None, "w:MaxElements": "32000"}}
        message = xmltodict.unparse({"env:Envelope": {**header, "env:Body": body}})
        answer = ET.fromstring(self._protocol.send_message(message))  # noqa: S314 - expat, no entities
        return [node.text or "" for node in answer.iter() if node.tag.endswith("}ShellId")]

    def _start(self, command: str, deadline: Deadline, *, piped: bool) -> str:
        """Send Command; a shell that is gone is replaced once, as nothing has run yet."""
        reopened = self._shell is None
        shell = self._shell or self._open(deadline)
        while True:
            try:
                return self._ask(
                    f"the start of `{command}`",
                    # Standard input is a pipe only when something is to be piped: in
                    # console mode Ctrl-Z and line editing apply.
                    partial(
                        self._protocol.run_command, shell, command, console_mode_stdin=not piped
                    ),
                    deadline,
                    self._open_s if reopened else self._operation_s + self._slack_s,
                )
            except ShellGone as gone:
                if reopened:
                    raise gone.as_silence(f"the start of `{command}`") from gone
                reopened = True
                shell = self._open(deadline)

    def _send(self, command: str, command_id: str, data: bytes, deadline: Deadline) -> None:
        chunks = [data[i : i + STDIN_CHUNK] for i in range(0, len(data), STDIN_CHUNK)] or [b""]
        for number, chunk in enumerate(chunks, 1):
            last = number == len(chunks)
            awaited = f"input {number} of {len(chunks)} to reach `{command}`"
            try:
                self._ask(
                    awaited,
                    partial(
                        self._protocol.send_command_input,
                        self._shell or "",
                        command_id,
                        chunk,
                        end=last,
                    ),
                    deadline,
                    self._operation_s + self._slack_s,
                )
            except ShellGone as gone:
                raise gone.as_silence(awaited) from gone

    def _receive(
        self, command: str, command_id: str, deadline: Deadline
    ) -> tuple[bytes, bytes, int]:
        awaited = f"the end of `{command}`"
        out, err = bytearray(), bytearray()
        while True:
            short = deadline.remaining < _PROOF_S
            try:
                more_out, more_err, code, done = self._receive_once(awaited, command_id, deadline)
            except StillRunning:
                more_out, more_err, code, done = b"", b"", -1, False
            except ShellGone as gone:
                raise gone.as_silence(awaited) from gone
            except Unanswered as silent:
                if not short:
                    raise
                raise deadline.expire(
                    f"{awaited} on {self.name}", "running when last asked"
                ) from silent
            out += more_out
            err += more_err
            if done:
                return bytes(out), bytes(err), code
            if deadline.expired:
                tail = bytes(out or err).decode(CODE_PAGE).strip().splitlines()
                raise deadline.expire(
                    f"{awaited} on {self.name}",
                    "still running" + (f", last printed {tail[-1]!r}" if tail else ""),
                )
            if not more_out and not more_err and len(self._pending) > 1:
                # The command takes long anyway: a moment when nobody waits for the channel.
                self._clean_up_one(deadline)

    def _receive_once(
        self, awaited: str, command_id: str, deadline: Deadline
    ) -> tuple[bytes, bytes, int, bool]:
        """One Receive; asked again while the guest answers nothing but HTTP 500."""
        request = partial(self._protocol.get_command_output_raw, self._shell or "", command_id)
        limit = self._operation_s + self._slack_s
        started = time.monotonic()
        try:
            return self._ask(awaited, request, deadline, limit)
        except HttpRefused as refused:
            if refused.status != _INTERNAL_ERROR:
                raise
            first = refused

        def again() -> tuple[bytes, bytes, int, bool]:
            try:
                return self._ask(awaited, request, deadline, limit)
            except HttpRefused as refused:
                raise NotYet(refused.message) from refused

        try:
            return wait_for(awaited, again, deadline.at_most(_ERRORS_S), interval=0.2)
        except DeadlineExpired as error:
            # Its shell is given up with it, so that the next command has a sound one.
            self._abandon_shell(deadline)
            raise LabBroken(
                f"{first.message}, and nothing else for {time.monotonic() - started:.0f} s",
                hint="raise MaxTimeoutms in the guest (winrm set winrm/config), or start long "
                "work with `start` and look for its end",
            ) from error

    def _abandon_shell(self, deadline: Deadline) -> None:
        """Delete the shell, and what runs in it; forget it whatever comes of that."""
        shell = self._shell
        self._forget_shell()
        if shell is None:
            return
        with contextlib.suppress(PvlabError):
            self._ask(
                "the shell's end",
                partial(self._protocol.close_shell, shell, close_session=False),
                deadline.at_most(self._slack_s),
                self._slack_s,
            )

    def _clean_up_one(self, deadline: Deadline) -> None:
        """Signal the oldest command that has ended."""
        command_id, shell = self._pending[0], self._shell
        if shell is None:
            self._pending.clear()
            return
        try:
            self._ask(
                "a command's clean-up",
                partial(self._protocol.cleanup_command, shell, command_id),
                deadline,
                self._operation_s + self._slack_s,
            )
        except ShellGone:
            return  # its commands went with it; _ask has forgotten them
        except LabBroken:
            pass  # the guest has no such command any more: it is as clean as it can be
        if self._pending and self._pending[0] == command_id:
            self._pending.popleft()

    def _forget_shell(self) -> None:
        _in_use.discard((self.port, self._shell or ""))
        self._shell = None
        self._pending.clear()

    def _ask(self, awaited: str, request: Callable[[], T], deadline: Deadline, limit_s: float) -> T:
        """One HTTP request with this deadline, its failures told apart.

        Args:
            awaited: what its answer means, for errors.
            request: sends it through pywinrm and returns its answer.
            deadline: when to give up.
            limit_s: seconds after which a missing answer is silence even before that.

        Raises:
            GuestSilent, LabBroken: as ``run`` says.
            ShellGone: the shell does not exist any more; it has been forgotten.
            StillRunning: the guest had nothing to report within the operation timeout.
        """
        remaining = deadline.remaining
        if remaining <= 0.0:
            raise deadline.expire(f"{awaited} on {self.name}", self._last_words())
        if self._last_answer and time.monotonic() - self._last_answer[0] > _IDLE_LIMIT_S:
            self._protocol.transport.close_session()
        # The guest must answer "still running" before we give up on the HTTP answer, so that
        # a slow command and a dead guest are told apart: at most half of what is left.
        operation = min(self._operation_s, remaining / 2)
        self._protocol.operation_timeout_sec = max(1, int(operation))
        # requests takes fractions of a second; pywinrm's annotation says whole ones.
        self._protocol.transport.read_timeout_sec = max(0.05, min(remaining, limit_s))  # type: ignore[assignment]
        failure: PvlabError | None = None
        try:
            answer = request()
        except Exception as error:
            failure = self._translate(error, awaited)
            if failure is None:
                raise
        if failure is not None:
            # Raised out here, so that it does not carry pywinrm's exception along: its frames
            # hold the HTTP response and so the connection, for as long as anyone keeps the
            # error.
            raise failure
        self._heard(awaited)
        return answer

    def _translate(self, error: Exception, awaited: str) -> PvlabError | None:
        """The lab's error for one of pywinrm's or requests'; None for anything else."""
        if isinstance(error, requests.RequestException):
            self._protocol.transport.close_session()
            words = _plain(error)
            silent = Unanswered if words == _UNANSWERED else GuestSilent
            return silent(self.name, awaited, f"{words}; {self._last_words()}")
        if isinstance(error, InvalidCredentialsError):
            return LoginRejected(
                f"{self.name}: WinRM rejected the login (HTTP 401)",
                hint="check user name and password in the profile, and that the guest's "
                "WinRM service allows Basic authentication and unencrypted traffic",
            )
        if isinstance(error, WinRMOperationTimeoutError):
            self._heard(awaited)
            return StillRunning(self.name, awaited, "WinRM reported an operation timeout")
        if isinstance(error, WSManFaultError):
            self._heard(awaited)
            lost = error.wsman_fault_code == _SHELL_NOT_FOUND or (
                error.fault_subcode or ""
            ).endswith("InvalidSelectors")
            if lost and _COMMAND_NOT_FOUND not in error.response:
                self._forget_shell()
                self._shells_lost += 1
                return ShellGone(self.name)
            if error.wsman_fault_code == _NO_SHELL_LEFT:
                return NoShellLeft(
                    f"{self.name}: WinRM has no shell left for this user",
                    hint="MaxShellsPerUser of winrm/config/winrs; another program may hold them",
                )
            code = error.wsman_fault_code or error.fault_subcode or error.fault_code or "no code"
            reason = " ".join(str(error.reason).split())
            return LabBroken(
                f"{self.name}: WinRM refused, awaited {awaited}: {reason} (fault {code})"
            )
        if isinstance(error, WinRMTransportError):
            self._heard(awaited)
            return HttpRefused(self.name, error.code, awaited)
        if isinstance(error, _NOT_WINRM):
            return LabBroken(
                f"{self.name}: not a WinRM answer, awaited {awaited}: {type(error).__name__}",
                hint="is this port the guest's WinRM listener?",
            )
        return None

    def _heard(self, awaited: str) -> None:
        self._last_answer = (time.monotonic(), awaited)

    def _last_words(self) -> str:
        if self._last_answer is None:
            return "it never answered"
        when, what = self._last_answer
        return f"last answer {time.monotonic() - when:.1f} s ago, for {what}"


class LoginRejected(LabBroken):
    """The guest's WinRM does not accept the account: waiting longer will not help."""


class Unanswered(GuestSilent):
    """No HTTP answer came in the time there was for it; nothing else went wrong."""


class StillRunning(GuestSilent):
    """WinRM ended a request with an operation timeout: expected while a command runs."""


class NoShellLeft(LabBroken):
    """The guest's quota of shells is used up."""


class HttpRefused(LabBroken):
    """The guest answered with an HTTP status and no message.

    Args:
        guest: the guest's name.
        status: the HTTP status.
        awaited: what was awaited.
    """

    def __init__(self, guest: str, status: int, awaited: str) -> None:
        super().__init__(
            f"{guest}: WinRM answered HTTP {status}, awaited {awaited}",
            hint="is this port the guest's WinRM listener?",
        )
        self.status = status


class ShellGone(LabBroken):
    """The guest does not know the shell any more.

    Args:
        guest: the guest's name.
    """

    def __init__(self, guest: str) -> None:
        super().__init__(f"{guest}: the shell does not exist any more")
        self.guest = guest

    def as_silence(self, awaited: str) -> GuestSilent:
        """The error for a caller whose command was already in the guest's hands."""
        return GuestSilent(self.guest, awaited, "the guest lost its shell (probably rebooted)")


_INTERNAL_ERROR = 500
_UNANSWERED = "no HTTP answer in time"


def _plain(error: requests.RequestException) -> str:
    """A transport failure in a few words, without urllib3's nested representations."""
    if isinstance(error, requests.ConnectTimeout):
        return "connecting took too long"
    if isinstance(error, requests.Timeout):
        return _UNANSWERED
    text = str(error)
    for sign, words in (
        ("refused", "connection refused"),
        ("reset", "connection reset"),
        ("timed out", _UNANSWERED),  # in the middle of an answer
        ("closed connection", "connection closed without an answer"),
        ("unreachable", "network unreachable"),
        ("No route", "no route to the guest"),
    ):
        if sign in text:
            return words
    return type(error).__name__
