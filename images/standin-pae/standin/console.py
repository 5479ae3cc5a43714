"""Byte streams and the context that a command of the stand-in runs in.

Streams carry bytes in code page 437 with CRLF line ends, as the lab's WinRM shell asks for
(WINRS_CODEPAGE 437, MS-WSMV section 3.1.4.5.2). ``Context.out`` takes text with ``\\n``.
"""

import os
import threading

CODE_PAGE = "cp437"


class TerminatedError(Exception):
    """The running command was ended from outside: Signal, taskkill or a deleted shell."""


def encode(text):
    """Text with ``\\n`` line ends as console bytes."""
    return text.replace("\n", "\r\n").encode(CODE_PAGE, "replace")


class Null:
    """NUL: reads nothing, swallows everything."""

    def read(self):
        """End of file."""
        return b""

    def write(self, data):
        """Forget ``data``."""

    def close(self):
        """Nothing to close."""


class FileOutput:
    """A redirection into a file.

    Args:
        path: real path.
        append: keep what is there.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path, append=False):
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(path, flags | (os.O_APPEND if append else os.O_TRUNC), 0o644)

    def write(self, data):
        """Write all of ``data``."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self):
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FileInput:
    """A redirection from a file.

    Args:
        path: real path.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path):
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self):
        """The next bytes, empty at the end."""
        return os.read(self._fd, 65536)

    def close(self):
        """Close the file."""
        os.close(self._fd)


class Queue:
    """A byte pipe: WinRM's stdin, and the ``|`` between two commands.

    Args:
        limit: bytes held before ``write`` waits for the reader; ``None`` for no limit.
    """

    def __init__(self, limit=None):
        self._chunks = []
        self._size = 0
        self._limit = limit
        self._ended = False
        self._broken = False
        self._changed = threading.Condition()

    def read(self):
        """All bytes waiting; blocks while there are none; empty at the end.

        Raises:
            TerminatedError: the reader was ended while it waited.
        """
        with self._changed:
            while not self._chunks and not self._ended:
                self._changed.wait()
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._size = 0
            self._changed.notify_all()
            if self._broken and not data:
                raise TerminatedError
            return data

    def write(self, data):
        """Append ``data``; dropped when the reader has gone."""
        with self._changed:
            while self._limit is not None and self._size >= self._limit and not self._ended:
                self._changed.wait()
            if not self._ended and data:
                self._chunks.append(bytes(data))
                self._size += len(data)
                self._changed.notify_all()

    def close(self):
        """No more will be written; what is there can still be read."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abort(self):
        """End both sides now."""
        with self._changed:
            self._broken = self._ended = True
            self._chunks.clear()
            self._changed.notify_all()

    @property
    def ended(self):
        """Whether the writing side was closed."""
        return self._ended


class Context:
    """Where a tool or built-in runs.

    Attributes:
        system: the ``standin.system.System`` it belongs to.
        session: the cmd.exe state: current folder, environment, errorlevel.
        process: its entry in the process table.
        name: the name it was started as.
        line: the raw argument text, quotes and leading space included.
        stdin, stdout, stderr: byte streams.
    """

    def __init__(self, system, session, process, name, line, stdin, stdout, stderr):
        self.system = system
        self.session = session
        self.process = process
        self.name = name
        self.line = line
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    @property
    def args(self):
        """The arguments, split as the Microsoft C runtime does (quotes removed)."""
        return split_arguments(self.line)

    def out(self, text):
        """Print to standard output; ``\\n`` becomes CRLF."""
        self.check()
        self.stdout.write(encode(text))

    def err(self, text):
        """Print to standard error; ``\\n`` becomes CRLF."""
        self.stderr.write(encode(text))

    def check(self):
        """Raise ``TerminatedError`` if the command was ended from outside."""
        if self.process.ended:
            raise TerminatedError

    def path(self, name):
        """The real path of a Windows path, relative to the current folder.

        Raises:
            OSError: the drive does not exist.
        """
        return self.system.files.real(name, self.session.cwd)

    def read_all(self):
        """All of standard input."""
        chunks = []
        while data := self.stdin.read():
            chunks.append(data)
        return b"".join(chunks)


def split_arguments(line):
    """Split a command line as the Microsoft C runtime does.

    Whitespace separates; ``"`` groups; backslashes are plain unless they stand before a
    quote, where 2n of them give n and 2n+1 give n and a literal quote (Microsoft C++
    documentation, "Parsing C command-line arguments").
    """
    args = []
    current = []
    started = quoted = False
    index = 0
    while index < len(line):
        char = line[index]
        if char == "\\":
            run = 0
            while index < len(line) and line[index] == "\\":
                run += 1
                index += 1
            if index < len(line) and line[index] == '"':
                current.append("\\" * (run // 2))
                if run % 2:
                    current.append('"')
                    index += 1
            else:
                current.append("\\" * run)
            started = True
            continue
        if char == '"':
            quoted = not quoted
            started = True
        elif char in " \t" and not quoted:
            if started:
                args.append("".join(current))
                current = []
                started = False
        else:
            current.append(char)
            started = True
        index += 1
    if started:
        args.append("".join(current))
    return args
