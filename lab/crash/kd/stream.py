"""The guest's serial port as a stream of bytes: a socket, a pseudo-terminal, a character device."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import stat
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.core.errors import LabBroken, UsageError

_CHUNK = 65536
_CONNECT_S = 10.0


class SerialStream:
    """A file descriptor that is read and written without waiting.

    Args:
        fd: open for reading and writing; it stays the caller's, and is set to not block while
            this object is open.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._blocking = os.get_blocking(fd)
        os.set_blocking(fd, False)

    def close(self) -> None:
        """Give the descriptor back as it was."""
        with contextlib.suppress(OSError):
            os.set_blocking(self.fd, self._blocking)

    def read(self) -> bytes | None:
        """The bytes that are there, which may be none; None when the other end is gone.

        Raises:
            LabBroken: the line cannot be read.
        """
        try:
            return os.read(self.fd, _CHUNK) or None
        except BlockingIOError:
            return b""
        except OSError as error:
            # A pseudo-terminal says EIO once its other end is closed (pty(7) is silent on
            # it; Linux, drivers/tty/tty_io.c).
            if error.errno in (errno.EIO, errno.ECONNRESET):
                return None
            raise LabBroken(f"the serial line cannot be read: {error.strerror}") from error

    def write(self, data: bytes) -> int:
        """Write what the line takes now; the number of bytes that it took.

        Raises:
            LabBroken: the line cannot be written.
        """
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno in (errno.EIO, errno.EPIPE, errno.ECONNRESET):
                return len(data)  # the next read says that it is gone
            raise LabBroken(f"the serial line cannot be written: {error.strerror}") from error


@contextmanager
def open_serial(address: str) -> Iterator[SerialStream]:
    """Open a guest's serial port.

    Args:
        address: path of a Unix socket, of a pseudo-terminal or another terminal device
            (``/dev/pts/3``), or ``HOST:PORT`` of a TCP socket.

    Raises:
        UsageError: there is no such thing, or it is not a serial port.
    """
    path = Path(address)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit():
            raise UsageError(f"{address}: {error.strerror}") from None
        with _socket(address, socket.AF_INET, (host, int(port))) as stream:
            yield stream
        return
    if stat.S_ISSOCK(mode):
        with _socket(address, socket.AF_UNIX, str(path)) as stream:
            yield stream
    elif stat.S_ISCHR(mode):
        with _terminal(path) as stream:
            yield stream
    else:
        raise UsageError(f"{address} is neither a socket nor a terminal")


@contextmanager
def _socket(
    name: str, family: socket.AddressFamily, target: str | tuple[str, int]
) -> Iterator[SerialStream]:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_S)
        try:
            connection.connect(target)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{name} cannot be connected: {reason}") from error
        stream = SerialStream(connection.fileno())
        try:
            yield stream
        finally:
            stream.close()


@contextmanager
def _terminal(path: Path) -> Iterator[SerialStream]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        try:
            before = termios.tcgetattr(fd)
            tty.setraw(fd)
        except termios.error as error:
            raise UsageError(f"{path} is not a terminal") from error
        stream = SerialStream(fd)
        try:
            yield stream
        finally:
            stream.close()
            with contextlib.suppress(termios.error):
                termios.tcsetattr(fd, termios.TCSANOW, before)
    finally:
        os.close(fd)


def wait_ready(
    stream: SerialStream, wake: int, writing: bool, seconds: float | None
) -> tuple[bool, bool]:
    """Sleep until something can be done.

    Args:
        stream: the line.
        wake: a descriptor that ends the sleep when it becomes readable.
        writing: whether room for writing ends the sleep too.
        seconds: how long at most; None for no limit.

    Returns:
        Whether the line can be read or is gone, and whether ``wake`` is readable.
    """
    poll = select.poll()
    poll.register(stream.fd, select.POLLIN | (select.POLLOUT if writing else 0))
    poll.register(wake, select.POLLIN)
    ready = dict(poll.poll(None if seconds is None else math.ceil(seconds * 1000)))
    return bool(ready.get(stream.fd, 0) & ~select.POLLOUT), wake in ready
