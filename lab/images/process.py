"""Programs that a build starts: their output is streamed, and they end with the build."""

from __future__ import annotations

import codecs
import os
import selectors
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.images import minder

CHUNK = 65536


class _Stream:
    """One output of a program: kept whole, and handed on line by line."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: list[str] = []
        self._rest = ""
        self._on_line = on_line

    def feed(self, data: bytes) -> None:
        """Take the next bytes; empty bytes mean the end."""
        text = self._decoder.decode(data, final=not data)
        self._parts.append(text)
        # A carriage return redraws a progress line: only what it ends up as matters.
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._on_line(line.rstrip("\r").rpartition("\r")[2])
        if not data and self._rest:
            self._on_line(self._rest)
            self._rest = ""

    @property
    def text(self) -> str:
        return "".join(self._parts)


def run_program(
    argv: Sequence[str | Path],
    deadline: Deadline,
    *,
    log: BinaryIO,
    on_line: Callable[[str], None],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> CommandResult:
    """Run a program on this machine, to its end.

    It and everything it starts die with this process, however this process ends.

    Args:
        argv: the program and its arguments; no shell is involved.
        deadline: when to kill it.
        log: gets both outputs as they come.
        on_line: called for each line of either output.
        cwd: its working folder; this process's own when None.
        env: variables to set on top of this process's own.
        stdin: what it reads; nothing when empty.

    Returns:
        Its result, whatever its exit status (127: it could not be started).

    Raises:
        DeadlineExpired: it was still running; it has been killed.
    """
    words = [str(word) for word in argv]
    command = shlex.join(words)
    started = time.monotonic()
    last = ""

    def heard(line: str) -> None:
        nonlocal last
        last = line or last
        on_line(line)

    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", minder.__file__, str(os.getpid()), *words],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            # A Ctrl-C must come to us alone: we end it in our own order.
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - asked for above
        assert process.stderr is not None  # noqa: S101 - asked for above
        out, err = _Stream(heard), _Stream(heard)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ, out)
                selector.register(process.stderr, selectors.EVENT_READ, err)
                while selector.get_map():
                    ready = selector.select(timeout=deadline.remaining)
                    if not ready and deadline.expired:
                        raise deadline.expire(f"`{command}` to end", last)
                    for key, _ in ready:
                        data = os.read(key.fd, CHUNK)
                        log.write(data)
                        key.data.feed(data)
                        if not data:
                            selector.unregister(key.fileobj)
                    log.flush()
            exit_code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            process.stdout.close()
            process.stderr.close()
    return CommandResult(
        command=command,
        exit_code=exit_code,
        stdout=out.text,
        stderr=err.text,
        seconds=time.monotonic() - started,
        where="host",
    )
