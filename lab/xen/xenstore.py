"""xenstore, through the command line tools in dom0."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.core.journal import noun
from lab.xen.dom0 import Dom0
from lab.xen.remote_wait import wait_loop

_NODE = re.compile(r'(?P<indent> *)(?P<path>\S[^=]*?)(?: = "(?P<value>.*)"|:)(?:\s+\(\w.*\))?')
# How xenstore-ls writes bytes that would break its format (xenstore_lib.c, sanitise_value).
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|[0-7]{3}|.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
# Kept back from a wait in dom0, so that its answer arrives before the caller's deadline.
_ANSWER_SECONDS = 2


@noun
class Xenstore:
    """Reads and writes nodes.

    Args:
        dom0: the connection.
        watches: whether dom0 has ``xenstore-watch`` and ``xenstore-ls -f`` (Xen 3.1 does not).
    """

    def __init__(self, dom0: Dom0, *, watches: bool = True) -> None:
        self.dom0 = dom0
        self.watches = watches

    def read(self, path: str, deadline: Deadline) -> str | None:
        """A node's value; None when there is no such node."""
        result = self.dom0.run(f"xenstore-read {shlex.quote(path)}", deadline)
        if result.ok:
            return result.stdout.removesuffix("\n")
        if "couldn't read path" in result.stderr:
            return None
        result.check()
        return None

    def write(self, path: str, value: str, deadline: Deadline) -> None:
        """Write a node, creating it and its parents.

        Raises:
            LabBroken: xenstore refused.
        """
        command = f"xenstore-write {shlex.quote(path)} {shlex.quote(value)}"
        self.dom0.run(command, deadline, check=True)

    def rm(self, path: str, deadline: Deadline) -> None:
        """Remove a node and all below it; fine when it is not there.

        Raises:
            LabBroken: xenstore refused.
        """
        result = self.dom0.run(f"xenstore-rm {shlex.quote(path)}", deadline)
        if not result.ok and "could not remove path" not in result.stderr:
            result.check()

    def ls(self, path: str, deadline: Deadline) -> dict[str, str]:
        """All nodes below ``path``, by whole path, in one command.

        Returns:
            Empty when there is no such path. A directory without a value has an empty one.
        """
        flag = "-f " if self.watches else ""
        result = self.dom0.run(f"xenstore-ls {flag}{shlex.quote(path)}", deadline)
        if not result.ok and "xs_directory" not in result.stderr:
            result.check()
        return parse_ls(result.stdout, path)

    def wait(self, path: str, values: Collection[str], deadline: Deadline) -> str:
        """Wait inside dom0 until a node has one of some values.

        Args:
            path: the node.
            values: what to wait for.
            deadline: when to give up.

        Returns:
            The value.

        Raises:
            DeadlineExpired: it still had another value.
        """
        node = shlex.quote(path)
        wanted = "|".join(shlex.quote(one) for one in values)
        seconds = max(1, int(deadline.remaining) - _ANSWER_SECONDS)
        script = (
            f"node={node} verdict=pending\n"
            "judge() {\n"
            '  value=$(xenstore-read "$node" 2>/dev/null) || return\n'
            f"  case $value in {wanted}) verdict=reached ;; esac\n"
            "}\n"
            "quiet() { judge; }\n"
            'finish() { printf \'%s %s\' "$verdict" "$value"; }\n'
            + wait_loop(["$node"], seconds, watches=self.watches)
            + 'value=; judge; if [ "$verdict" = pending ]; then await; else finish; fi'
        )
        result = self.dom0.run(script, deadline, check=True)
        verdict, _, value = result.stdout.partition(" ")
        if verdict != "reached":
            raise deadline.expire(
                f"{path} to become {' or '.join(sorted(values))}", value or "no such node"
            )
        return value


def parse_ls(text: str, below: str = "") -> dict[str, str]:
    """Parse ``xenstore-ls``, with ``-f`` (whole paths) or without (a tree, one space a level).

    Args:
        text: its output; permissions of ``-p`` are ignored.
        below: the path that was listed; needed for a tree.

    Returns:
        Values by whole path.

    Raises:
        LabBroken: a line is not understood.
    """
    nodes: dict[str, str] = {}
    stack: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        match = _NODE.fullmatch(line)
        if match is None:
            raise LabBroken(f"cannot read this line of xenstore-ls: {line.strip()}")
        path = match["path"]
        if not path.startswith("/"):
            depth = len(match["indent"])
            del stack[depth:]
            stack.append(path)
            path = "/".join([below.rstrip("/"), *stack])
        nodes[path] = _ESCAPE.sub(_unescape, match["value"] or "")
    return nodes


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] == "x" and len(code) == 3:
        return chr(int(code[1:], 16))
    if code.isdecimal() and len(code) == 3:
        return chr(int(code, 8))
    return _ESCAPES.get(code, code)
