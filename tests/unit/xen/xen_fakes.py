"""Stand-ins for dom0: scripted answers, and a directory of fake Xen tools."""

from __future__ import annotations

import os
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.xen.dom0 import Dom0


class ScriptedDom0(Dom0):
    """Answers commands from a table; the key is how the command starts."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 1, "root", Path("/nonexistent"))
        self.answers: list[tuple[str, tuple[int, str, str]]] = []
        self.commands: list[str] = []

    def answer(
        self, start: str, stdout: str = "", *, stderr: str = "", exit_code: int = 0
    ) -> ScriptedDom0:
        self.answers.append((start, (exit_code, stdout, stderr)))
        return self

    def run(
        self,
        command: str,
        deadline: Deadline,
        *,
        stdin: bytes | None = None,
        check: bool = False,
        while_waiting: Callable[[], None] | None = None,
    ) -> CommandResult:
        self.commands.append(command)
        for start, (code, out, err) in self.answers:
            if command.startswith(start):
                result = CommandResult(command, code, out, err, 0.1, "dom0")
                return result.check() if check else result
        raise AssertionError(f"unexpected command in dom0: {command}")


class ShellDom0(Dom0):
    """Runs commands in a shell here, with a folder of fake tools first in PATH."""

    def __init__(self, tools: Path, shell: str = "/bin/sh") -> None:
        super().__init__("127.0.0.1", 1, "root", Path("/nonexistent"))
        self.tools = tools
        self.shell = shell
        self.calls = 0

    def run(
        self,
        command: str,
        deadline: Deadline,
        *,
        stdin: bytes | None = None,
        check: bool = False,
        while_waiting: Callable[[], None] | None = None,
    ) -> CommandResult:
        self.calls += 1
        started = time.monotonic()
        try:
            done = subprocess.run(
                [self.shell, "-c", command],
                env={**os.environ, "PATH": f"{self.tools}:{os.environ['PATH']}", "LC_ALL": "C"},
                input=stdin,
                stdin=None if stdin is not None else subprocess.DEVNULL,
                capture_output=True,
                timeout=max(0.1, deadline.remaining),
            )
        except subprocess.TimeoutExpired as late:
            raise deadline.expire(command, "") from late
        result = CommandResult(
            command,
            done.returncode,
            done.stdout.decode(),
            done.stderr.decode(),
            time.monotonic() - started,
            "dom0",
        )
        return result.check() if check else result


class FakeTools:
    """Fake ``xl``, ``xenstore-*`` and ``dmesg`` over a folder of files as the store.

    A hook is a shell script run by the named ``xl`` command; in it, ``put PATH VALUE``,
    ``gone PATH`` and ``release`` change the store, and ``( ... ) &`` does so later.
    """

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.store = folder / "store"
        self.hooks = folder / "hooks"
        self.log = folder / "calls"
        for one in (self.bin, self.store, self.hooks):
            one.mkdir()
        self.log.touch()
        self.hook("list", 'echo "virtdemo    7   256     1     -b----       3.1"')
        self.hook("dmesg", 'echo "(XEN) d7v0 Triple fault - invoking HVM shutdown action 1"')
        lib = f"""
            store={self.store}
            log() {{ echo "$*" >>{self.log}; }}
            put() {{ mkdir -p "$store${{1%/*}}"; printf '%s' "$2" >"$store$1.new"
                    mv "$store$1.new" "$store$1"; }}
            gone() {{ rm -rf "$store$1"; }}
            release() {{ echo x >>"$store/.release"; }}
        """
        (self.bin / "lib").write_text(textwrap.dedent(lib))
        for name in ("xl", "xm"):
            self.add(
                name, f'log "{name} $*"; hook={self.hooks}/$1; [ -f "$hook" ] || exit 0; . "$hook"'
            )
        self.add("dmesg", ":")
        self.add(
            "xenstore-ls",
            """
            log "xenstore-ls $*"
            [ "$1" = -f ] && { whole=1; shift; } || whole=
            for path; do
              [ -d "$store$path" ] || { echo "xenstore-ls: xs_directory ($path): No" >&2; exit 1; }
              for node in "$store$path"/*; do
                [ -f "$node" ] || continue
                name=${node##*/}; [ -z "$whole" ] || name=$path/$name
                printf '%s = "%s"\\n' "$name" "$(cat "$node")"
              done
            done
            """,
        )
        self.add(
            "xenstore-read",
            """
            [ -f "$store$1" ] || { echo "xenstore-read: couldn't read path $1" >&2; exit 1; }
            cat "$store$1"; echo
            """,
        )
        self.add(
            "xenstore-watch",
            """
            log "xenstore-watch $*"
            see() { if [ "$1" = @releaseDomain ]; then cat "$store/.release" 2>/dev/null
                    else cat "$store$1" 2>/dev/null; fi | cksum; }
            i=0; for one; do i=$((i+1)); eval "seen$i=\\$(see $one)"; echo "$one"; done
            while :; do
              sleep 0.05
              i=0; for one; do
                i=$((i+1)); now=$(see "$one"); eval "was=\\$seen$i"
                [ "$now" = "$was" ] || { eval "seen$i=\\$now"; echo "$one"; }
              done
            done
            """,
        )

    def add(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n. {self.bin}/lib\n{textwrap.dedent(body)}\n")
        path.chmod(0o755)

    def hook(self, command: str, script: str) -> None:
        (self.hooks / command).write_text(textwrap.dedent(script))

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()
