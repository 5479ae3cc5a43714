"""dom0, over one SSH connection."""

from __future__ import annotations

import contextlib
import logging
import select
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import paramiko

from lab.core.command import CommandResult
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, LabBroken, UsageError
from lab.core.journal import noun
from lab.xen.forward import Forward
from lab.xen.old_ssh import OldTransport, Sha1RsaKey

if TYPE_CHECKING:
    from testinfra.host import Host  # type: ignore[import-untyped]

# Cheapest first for an emulated CPU: an elliptic-curve exchange of one scalar multiplication
# a side, the AES the CPU model has instructions for, one hash.
_KEX = ("curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256")
_HOST_KEYS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256")
_CIPHERS = ("aes128-gcm@openssh.com", "aes128-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-256")

# Seconds a try may take to the server's banner. QEMU accepts on the forwarded port while
# nobody listens behind it, so the first tries are short; a loaded dom0 needs the long ones.
_BANNER_SECONDS = (4.0, 8.0, 15.0, 30.0)
# The reading side of a channel wakes `select`; room in its window does not.
_SEND_POLL_SECONDS = 0.02
_CHUNK = 32768
# How often a running command's `while_waiting` is called.
_TICK_SECONDS = 1.0

# paramiko logs each failed try with its trace; the last one is in our own message.
logging.getLogger("paramiko.transport").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class RawOutput:
    """What a command gave, undecoded.

    Attributes:
        exit_code: its exit status; -1 when a signal ended it.
        stdout: standard output.
        stderr: standard error.
        seconds: wall time from sending to the last byte.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float


@noun
class Dom0:
    """One multiplexed SSH connection to dom0.

    A clone of the template starts with no connection open, so ``connect`` is always a fresh
    handshake; everything after it is a channel of the same connection.

    Args:
        host: address to connect to, normally the loopback.
        port: TCP port that reaches dom0's port 22.
        username: account in dom0.
        key_file: its private key, ed25519; RSA for a server of old.
        host_key: the key dom0 must prove to have; None to accept any.
        old_server: dom0's SSH server is of 2007 and knows nothing without SHA-1
            (``lab.xen.old_ssh``); such algorithms are offered to no other.
    """

    def __init__(
        self,
        host: str,
        port: int,
        username: str,
        key_file: Path,
        *,
        host_key: paramiko.PKey | None = None,
        old_server: bool = False,
    ) -> None:
        self.host = host
        self.port = port
        self.username = username
        self.key_file = key_file
        self.host_key = host_key
        self.old_server = old_server
        self._transport: paramiko.Transport | None = None
        self._sftp: paramiko.SFTPClient | None = None
        self._testinfra: Host | None = None
        self._sftp_lock = threading.Lock()

    def __enter__(self) -> Dom0:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Whether the connection is up, as far as this side knows."""
        return self._transport is not None and self._transport.is_active()

    def connect(
        self, deadline: Deadline, *, while_waiting: Callable[[], None] | None = None
    ) -> None:
        """Connect, trying again while dom0 is not answering yet.

        Args:
            deadline: when to give up; dom0 may still be booting.
            while_waiting: called before each try; what it raises ends the wait and passes
                through.

        Raises:
            LabBroken: no SSH server answered in time (the message says what was last seen),
                the key or the host key was refused.
            UsageError: the key file cannot be read.
        """
        self.close()
        key = _load_key(self.key_file, Sha1RsaKey if self.old_server else paramiko.Ed25519Key)
        tries = iter(_BANNER_SECONDS)
        patience = next(tries)

        def attempt() -> paramiko.Transport:
            nonlocal patience
            if while_waiting is not None:
                while_waiting()
            try:
                return self._open(key, patience, deadline)
            except NotYet:
                patience = next(tries, patience)
                raise

        try:
            self._transport = wait_for("SSH in dom0", attempt, deadline, interval=0.1)
        except DeadlineExpired as late:
            raise LabBroken(
                f"dom0 did not answer on {self.host}:{self.port} within {late.seconds:.0f} s; "
                f"last seen: {late.last_seen}",
                hint="the serial log of the host shows how far it booted",
            ) from late

    def _open(self, key: paramiko.PKey, patience: float, deadline: Deadline) -> paramiko.Transport:
        try:
            sock = socket.create_connection(
                (self.host, self.port), timeout=max(0.1, min(patience, deadline.remaining))
            )
        except OSError as error:
            raise NotYet(f"TCP: {error.strerror or error}") from error
        try:
            # Small requests and answers: waiting to fill a segment only adds latency.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = OldTransport(sock) if self.old_server else paramiko.Transport(sock)
        except BaseException:
            sock.close()
            raise
        try:
            if not self.old_server:
                self._prefer_cheap(transport.get_security_options())
            transport.banner_timeout = max(0.1, min(patience, deadline.remaining))
            transport.handshake_timeout = max(0.1, deadline.remaining)
            transport.auth_timeout = max(0.1, deadline.remaining)
            # connect() would start an own, shorter clock: start_client takes ours.
            transport.start_client(timeout=max(0.1, deadline.remaining))
            self._check_host_key(transport)
            transport.auth_publickey(self.username, key)
        except paramiko.AuthenticationException as error:
            lost = not transport.is_active()
            transport.close()
            # paramiko names a connection lost during the login as a refusal.
            if lost or deadline.expired:
                raise NotYet("host key accepted, no answer to the login") from error
            raise LabBroken(
                f"dom0 refused the key {self.key_file} for {self.username}",
                hint="the image and its key do not belong together: rebuild the image",
            ) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            transport.close()
            raise NotYet(f"SSH: {str(error) or type(error).__name__}") from error
        except BaseException:
            transport.close()
            raise
        return transport

    def _prefer_cheap(self, options: paramiko.SecurityOptions) -> None:
        options.kex = _offer(_KEX, options.kex)
        known = () if self.host_key is None else (self.host_key.get_name(),)
        options.key_types = _offer((*known, *_HOST_KEYS), options.key_types)
        options.ciphers = _offer(_CIPHERS, options.ciphers)
        options.digests = _offer(_MACS, options.digests)

    def _check_host_key(self, transport: paramiko.Transport) -> None:
        if self.host_key is None:
            return
        offered = transport.get_remote_server_key()
        if offered.asbytes() != self.host_key.asbytes():
            raise LabBroken(
                f"{self.host}:{self.port} is not this lab's dom0: its host key is "
                f"{offered.get_name()} {offered.fingerprint}",
                hint="another program may have taken the port, or the image was rebuilt",
            )

    @property
    def transport(self) -> paramiko.Transport:
        """The live connection.

        Raises:
            LabBroken: there is none.
        """
        if self._transport is None:
            raise LabBroken("not connected to dom0")
        if not self._transport.is_active():
            raise LabBroken(
                "the connection to dom0 was lost",
                hint="the emulator's and the host's serial logs show whether it died",
            )
        return self._transport

    def run(
        self,
        command: str,
        deadline: Deadline,
        *,
        stdin: bytes | None = None,
        check: bool = False,
        while_waiting: Callable[[], None] | None = None,
    ) -> CommandResult:
        """Run a shell command in dom0.

        Args:
            command: passed to the login shell as it is.
            deadline: when to give up; the command is then hung up on.
            stdin: its standard input; none is an empty one.
            check: raise when it exits other than 0.
            while_waiting: called about once a second while the command runs; what it raises
                ends the wait and passes through.

        Returns:
            The result, decoded as UTF-8 with unknown bytes replaced.

        Raises:
            DeadlineExpired: the command was still running; carries its last output line.
            LabBroken: the connection is lost, or ``check`` and the command failed.
        """
        raw = self.run_raw(command, deadline, stdin=stdin, while_waiting=while_waiting)
        result = CommandResult(
            command=command,
            exit_code=raw.exit_code,
            stdout=raw.stdout.decode(errors="replace"),
            stderr=raw.stderr.decode(errors="replace"),
            seconds=raw.seconds,
            where="dom0",
        )
        return result.check() if check else result

    def run_raw(
        self,
        command: str,
        deadline: Deadline,
        *,
        stdin: bytes | None = None,
        while_waiting: Callable[[], None] | None = None,
    ) -> RawOutput:
        """Run a shell command in dom0 and leave its output undecoded.

        Args and errors are those of ``run``.
        """
        started = time.monotonic()
        channel = self._open_channel(deadline)
        try:
            with _connection_errors():
                channel.settimeout(max(0.1, deadline.remaining))
                try:
                    channel.exec_command(command)
                except TimeoutError as error:
                    raise deadline.expire(f"dom0 to start `{_brief(command)}`", "") from error
                talk = _Talk(channel, stdin or b"")
                tick = deadline.at_most(_TICK_SECONDS)
                while not talk.finished:
                    talk.step(min(deadline.remaining, tick.remaining))
                    if tick.expired and while_waiting is not None:
                        while_waiting()
                    if tick.expired:
                        tick = Deadline(_TICK_SECONDS)
                    if deadline.expired and not talk.finished:
                        raise deadline.expire(
                            f"`{_brief(command)}` in dom0", talk.last_line or "no output"
                        )
                if not channel.status_event.wait(deadline.remaining):
                    raise deadline.expire(
                        f"the exit status of `{_brief(command)}` in dom0", talk.last_line
                    )
        finally:
            channel.close()
        if channel.exit_status == -1:
            # No status: ended by a signal, or the connection went; the property tells which.
            _ = self.transport
        return RawOutput(channel.exit_status, talk.stdout, talk.stderr, time.monotonic() - started)

    def _open_channel(self, deadline: Deadline) -> paramiko.Channel:
        transport = self.transport
        with _connection_errors():
            try:
                # Never 0: paramiko takes that as "no timeout given" and waits for an hour.
                return transport.open_session(timeout=max(0.1, deadline.remaining))
            except paramiko.SSHException as error:
                if transport.is_active() and deadline.expired:
                    raise deadline.expire("a session in dom0", str(error)) from error
                raise

    def read_text(self, remote: str, deadline: Deadline) -> str:
        """The contents of a text file in dom0, in one command.

        Raises:
            LabBroken: it cannot be read.
        """
        return self.run(f"cat -- {shlex.quote(remote)}", deadline, check=True).stdout

    def get(self, remote: str, local: Path, deadline: Deadline) -> None:
        """Copy a file out of dom0.

        Raises:
            LabBroken: it cannot be read, or the connection is lost.
            DeadlineExpired: it took too long.
        """
        with self._file_transfer(f"copy {remote} out of dom0", deadline) as (sftp, progress):
            sftp.get(remote, str(local), callback=progress)

    def put(self, local: Path, remote: str, deadline: Deadline) -> None:
        """Copy a file into dom0.

        Raises:
            LabBroken: it cannot be written, or the connection is lost.
            DeadlineExpired: it took too long.
        """
        with self._file_transfer(f"copy {local} into dom0", deadline) as (sftp, progress):
            sftp.put(str(local), remote, callback=progress)

    @contextlib.contextmanager
    def _file_transfer(
        self, what: str, deadline: Deadline
    ) -> Iterator[tuple[paramiko.SFTPClient, Callable[[int, int], None]]]:
        copied = "nothing copied"

        def progress(done: int, total: int) -> None:
            nonlocal copied
            copied = f"{done} of {total} bytes"
            if deadline.expired:
                raise deadline.expire(what, copied)

        transport = self.transport
        with self._sftp_lock, _connection_errors():
            try:
                if self._sftp is None:
                    # One server process in dom0, kept for the connection's life.
                    self._sftp = paramiko.SFTPClient.from_transport(transport)
                    if self._sftp is None:
                        raise LabBroken("dom0's SSH server has no file transfer")
                channel = self._sftp.get_channel()
                if channel is not None:
                    channel.settimeout(max(0.1, deadline.remaining))
                yield self._sftp, progress
            except TimeoutError as error:
                self._drop_sftp()
                raise deadline.expire(what, copied) from error
            except DeadlineExpired:
                # Requests are still on their way; a new session keeps them apart.
                self._drop_sftp()
                raise
            except OSError as error:
                raise LabBroken(f"cannot {what}: {error.strerror or error}") from error

    def _drop_sftp(self) -> None:
        if self._sftp is not None:
            self._sftp.close()
            self._sftp = None

    @contextlib.contextmanager
    def tunnel(self, host: str, port: int) -> Iterator[int]:
        """Forward a loopback port of this machine to an address dom0 can reach.

        Args:
            host: address as dom0 sees it.
            port: its TCP port.

        Yields:
            The local TCP port, listening on 127.0.0.1.

        Raises:
            LabBroken: the connection is lost.
        """
        forward = Forward(self.transport, host, port)
        try:
            yield forward.port
        finally:
            forward.close()

    @property
    def testinfra(self) -> Host:
        """dom0 as a testinfra host, over this same connection."""
        if self._testinfra is None:
            # Imported late: testinfra pulls in a module per noun and few runs use it.
            from lab.xen.testinfra_backend import host_over

            self._testinfra = host_over(self)
        return self._testinfra

    def close(self) -> None:
        """Close the connection; fine to call twice."""
        with self._sftp_lock:
            self._drop_sftp()
        if self._transport is not None:
            self._transport.close()
            self._transport = None


class _Talk:
    """The bytes to and from one running command."""

    def __init__(self, channel: paramiko.Channel, stdin: bytes) -> None:
        self._channel = channel
        self._unsent = memoryview(stdin)
        self._out: list[bytes] = []
        self._err: list[bytes] = []
        self._input_open = True
        self.finished = False
        # fileno() arms a pipe that becomes readable with data and stays so at the end.
        self._readable = channel.fileno()

    def step(self, seconds: float) -> None:
        """Move what can be moved; sleep until more can, ``seconds`` at most."""
        self._send()
        if not self._receive():
            if self._channel.closed or self._channel.eof_received:
                # The end was marked after the last data: look once more, then finish.
                self.finished = not self._receive()
                return
            if self._unsent:
                seconds = min(seconds, _SEND_POLL_SECONDS)
            select.select([self._readable], [], [], max(0.0, seconds))

    def _send(self) -> None:
        while self._unsent and self._channel.send_ready():
            try:
                sent = self._channel.send(bytes(self._unsent[:_CHUNK]))
            except OSError:
                # The command does not read its input to the end; its status tells the rest.
                sent = 0
            self._unsent = self._unsent[sent:] if sent else memoryview(b"")
        if self._input_open and not self._unsent:
            self._channel.shutdown_write()
            self._input_open = False

    def _receive(self) -> bool:
        moved = False
        while self._channel.recv_ready():
            self._out.append(self._channel.recv(_CHUNK))
            moved = True
        while self._channel.recv_stderr_ready():
            self._err.append(self._channel.recv_stderr(_CHUNK))
            moved = True
        return moved

    @property
    def stdout(self) -> bytes:
        """Standard output so far."""
        return b"".join(self._out)

    @property
    def stderr(self) -> bytes:
        """Standard error so far."""
        return b"".join(self._err)

    @property
    def last_line(self) -> str:
        """The last line printed so far, standard error first."""
        text = (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")
        return text.splitlines()[-1].strip() if text else ""


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    try:
        yield
    except (paramiko.SSHException, EOFError, ConnectionError) as error:
        raise LabBroken(
            f"the connection to dom0 failed: {str(error) or type(error).__name__}",
            hint="the emulator's and the host's serial logs show whether it died",
        ) from error


def _brief(command: str) -> str:
    """The first line of a command, short enough for a one-line message."""
    first, _, rest = command.strip().partition("\n")
    return first[:80] + (" ..." if rest or len(first) > 80 else "")


def _offer(wanted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """What this paramiko knows, ``wanted`` first: the client's order decides."""
    first = [name for name in dict.fromkeys(wanted) if name in known]
    return (*first, *(name for name in known if name not in first))


def _load_key(key_file: Path, kind: type[paramiko.PKey]) -> paramiko.PKey:
    try:
        return kind.from_private_key_file(str(key_file))
    except (OSError, ValueError, paramiko.SSHException) as error:
        raise UsageError(f"cannot use the key {key_file}: {error}") from error
