"""DbgView: capture what drivers print into a log file.

Switches: those of DbgView 4.81's help (/t /f /k /v /g /o /om /on /l /p /m /w /n /x /h /a).
A log line is: index of 8 digits, TAB, seconds since the first line with 8 decimals (or a
clock), TAB, text, TAB, CRLF.

The kernel's messages come from /dev/kmsg, one record a read (Documentation/ABI/testing/
dev-kmsg): ``priority,sequence,microseconds,flags;text`` and lines of properties that start
with a space. Only PV driver lines are taken: facility 0 and text that the configured filter
or an installed service's name matches. Each batch is synced to disk at once: a guest that
crashes must leave as many lines as possible.
"""

import errno
import os
import re
import select
import time
from contextlib import suppress

#: Switches without a value, with a value; ``/m`` and ``/h`` take a number.
_PLAIN = ("t", "f", "k", "v", "g", "o", "om", "on", "p", "w", "n", "x", "a", "accepteula", "s")
_VALUED = ("l", "m", "h")

USAGE = (
    "Usage: dbgview [/f] [/t] [/k] [/v] [/g] [/o|/om|/on] [/l logfile] [/p] [/m megabytes] [/w] "
    "[/n] [/x] [/h depth] [/a]\n"
)


def _parse(args):
    """The switches as a mapping, or ``None`` if one is wrong."""
    options = {}
    index = 0
    while index < len(args):
        word = args[index]
        name = word[1:].lower()
        if word[:1] not in "/-" or name not in _PLAIN + _VALUED:
            return None
        value = True
        if name in _VALUED:
            index += 1
            if index >= len(args) or (name != "l" and not args[index].isdigit()):
                return None
            value = args[index]
        options[name] = value
        index += 1
    return options


class Log:
    """The log file.

    Args:
        path: real path.
        append: keep what is there (/p).
        limit: bytes, 0 for none (/m).
        wrap: at the limit start over (/w) instead of stopping.
    """

    def __init__(self, path, append, limit, wrap):
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(path, flags | (os.O_APPEND if append else os.O_TRUNC), 0o644)
        self._limit = limit
        self._wrap = wrap
        self._size = os.fstat(self._fd).st_size

    def write(self, data):
        """Append a batch and wait until it is on the disk."""
        if self._limit and self._size + len(data) > self._limit:
            if not self._wrap:
                return
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._size = 0
        os.write(self._fd, data)
        os.fdatasync(self._fd)
        self._size += len(data)

    def close(self):
        """Close the file."""
        os.close(self._fd)


class Formatter:
    """Turns kernel records into log lines.

    Args:
        wanted: compiled expression that a driver's line matches.
        clock: ``None`` for elapsed seconds, ``"o"`` for a clock, ``"om"`` with milliseconds.
    """

    def __init__(self, wanted, clock=None):
        self._wanted = wanted
        self._clock = clock
        self._index = 0
        self._first = None

    def line(self, record):
        """The log line of a record as bytes; empty if it is not a driver's."""
        head, semicolon, text = record.partition(";")
        fields = head.split(",")
        if not semicolon or len(fields) < 3 or not fields[0].isdigit():
            return b""
        # The facility is in the bits above the level; 0 is the kernel.
        if int(fields[0]) >> 3 or not self._wanted.search(text):
            return b""
        microseconds = int(fields[2])
        if self._first is None:
            self._first = microseconds
        self._index += 1
        if self._clock is None:
            when = f"{(microseconds - self._first) / 1e6:.8f}"
        else:
            now = time.time()
            local = time.localtime(now)
            fraction = f".{int(now * 1000) % 1000:03d}" if self._clock == "om" else ""
            when = time.strftime("%I:%M:%S", local) + fraction + time.strftime(" %p", local)
        # An empty print becomes one space.
        return f"{self._index:08d}\t{when}\t{text or ' '}\t\r\n".encode("cp437", "replace")


def wanted_lines(ctx):
    """The expression for the lines of PV drivers: the filter and the services' names."""
    names = [re.escape(name) for name in ctx.system.devices.installed_services()]
    return re.compile("|".join([ctx.system.config.kernel_filter, *names]), re.IGNORECASE)


def run(ctx):
    """Capture until ended by taskkill."""
    options = _parse(ctx.args)
    if options is None:
        ctx.err(USAGE)
        return 1
    clock = "om" if "om" in options else "o" if "o" in options else None
    log = None
    wake_read, wake_write = os.pipe()
    source = -1
    try:
        if "l" in options:
            limit = int(options.get("m", 0)) << 20
            log = Log(ctx.path(options["l"]), "p" in options, limit, "w" in options)
        if "k" in options and log is not None:
            source = os.open(ctx.system.config.kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            # Only what is printed from now on; a pipe has no end to seek to.
            with suppress(OSError):
                os.lseek(source, 0, os.SEEK_END)
        wake = lambda: os.write(wake_write, b"x")  # noqa: E731 - needs an identity to forget
        ctx.process.on_end(wake)
        _capture(ctx, source, wake_read, log, Formatter(wanted_lines(ctx), clock))
        ctx.process.forget(wake)
    finally:
        for fd in (wake_read, wake_write, source):
            if fd >= 0:
                os.close(fd)
        if log is not None:
            log.close()
    return 0


def _capture(ctx, source, wake, log, formatter):
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    if source >= 0:
        poll.register(source, select.POLLIN)
    rest = b""
    while not ctx.process.ended:
        ready = [fd for fd, _ in poll.poll()]
        if source in ready:
            data, more = _drain(source)
            *lines, rest = (rest + data).split(b"\n")
            batch = b"".join(
                formatter.line(line.decode("utf-8", "replace"))
                for line in lines
                if not line.startswith(b" ")
            )
            if batch:
                log.write(batch)
            if not more:
                poll.unregister(source)  # nothing will come from here any more


def _drain(source):
    """All records waiting, and whether more may come later."""
    chunks = []
    while True:
        try:
            data = os.read(source, 8192)
        except BlockingIOError:
            return b"".join(chunks), True
        except OSError as error:
            if error.errno == errno.EPIPE:
                continue  # records were overwritten before they were read
            if error.errno == errno.EINVAL:
                return b"".join(chunks), True  # a record longer than the buffer
            raise
        if not data:
            return b"".join(chunks), False
        chunks.append(data)
