"""The ``xm`` dialect (xend, Xen 3.x), and a shim that speaks it in a dom0 that has only xl."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import LabBroken
from lab.xen.blockspec import BlockSpec, devid
from lab.xen.config import DomainConfig
from lab.xen.dom0 import Dom0
from lab.xen.errors import ToolstackDown
from lab.xen.toolstack import DomainRef, Toolstack, ref
from lab.xen.xend import DUMP_FOLDERS, AutoCore

_TOKEN = re.compile(r"""\s*(?:([()])|'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s()'"]+))""")
# What stands behind a backslash in a quoted word (tools/python/xen/xend/sxp.py, escapes).
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v"}

# An S-expression: a word or a list of them.
Sxp = str | list["Sxp"]


XM_OVER_XL = "xm (shim over xl)"
"""What reports call the shim."""

_SHIM = "xm_over_xl.sh"


class XmToolstack(Toolstack):
    """``xm``."""

    program = "xm"
    has_watches = False
    # DEVICE_CREATE_TIMEOUT (tools/python/xen/xend/server/DevController.py).
    hotplug_wait_s = 100.0

    def configuration(self, config: DomainConfig) -> str:
        """A Python program of plain assignments, for a 32-bit dom0."""
        return config.for_xm()

    def restart_daemon(self, deadline: Deadline) -> None:
        """Restart xend and wait until it answers; domains run on meanwhile.

        Raises:
            LabBroken: its init script failed.
            DeadlineExpired: it does not answer.
        """
        self.dom0.run("service xend restart", deadline, check=True)

        def answers() -> None:
            try:
                self.list(deadline)
            except ToolstackDown as down:
                raise NotYet(down.message) from down

        wait_for("xend to answer", answers, deadline, interval=0.5)

    def automatic_cores(self, deadline: Deadline) -> tuple[AutoCore, ...]:
        """The cores that xend dumped of domains that crashed, oldest first.

        It does so where ``(enable-dump yes)`` stands in its configuration.
        """
        folders = " ".join(map(shlex.quote, DUMP_FOLDERS))
        listed = self.dom0.run(f"ls -1 {folders} 2>/dev/null", deadline).lines
        # Two names of one folder, where one is a link, list the same files.
        found = {core for core in map(AutoCore.parse, listed) if core is not None}
        return tuple(sorted(found, key=lambda core: (core.time, core.file)))

    def block_attach_words(self, domain: DomainRef, spec: BlockSpec) -> tuple[str, ...]:
        """``DOMAIN BACKEND FRONTEND MODE``, as xm(1) documents them."""
        return ("block-attach", ref(domain), spec.backend, f"/dev/{spec.vdev}", spec.mode)

    def block_detach_words(
        self, domain: DomainRef, vdev: str | int, *, force: bool
    ) -> tuple[str, ...]:
        """``DOMAIN DEVICE [-f]``: xm looks for the option in the third place only."""
        options = ("-f",) if force else ()
        return ("block-detach", ref(domain), str(devid(str(vdev))), *options)

    def _dump_core_command(self, domain: DomainRef, path: str) -> str:
        """``xm dump-core``, during which xend stops the domain.

        When it fails, xend renames what it wrote to (``XendDomainInfo.dumpCore``), and a
        device node must not lose its name.
        """
        node, lost = shlex.quote(path), shlex.quote(f"{path}-incomplete")
        return (
            f"{super()._dump_core_command(domain, path)}; status=$?\n"
            f"[ ! -b {lost} ] || mv -f {lost} {node}\n"
            "exit $status"
        )

    def migrate_here_words(self, domain: DomainRef) -> tuple[str, ...]:
        """Through xend's relocation server on the loopback interface."""
        return ("migrate", "--live", ref(domain), "localhost")

    def config(self, domain: DomainRef, deadline: Deadline) -> dict[str, Any]:
        """``xm list --long``: names to values; a name that repeats becomes a list."""
        text = self._run(deadline, "list", "--long", ref(domain)).stdout
        return as_dict(parse_sxp(text))


def parse_sxp(text: str) -> Sxp:
    """Parse the first S-expression of a text, as xend prints them.

    Raises:
        LabBroken: its parentheses do not match.
    """
    stack: list[list[Sxp]] = []
    position = 0
    while match := _TOKEN.match(text, position):
        position = match.end()
        if match[1] == "(":
            stack.append([])
        elif match[1] == ")":
            if not stack:
                break
            done = stack.pop()
            if not stack:
                return done
            stack[-1].append(done)
        elif stack:
            quoted = match[2] if match[2] is not None else match[3]
            stack[-1].append(match[4] if quoted is None else _ESCAPE.sub(_unescape, quoted))
    raise LabBroken("xm printed an S-expression that does not end")


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[1])


def as_dict(sxp: Sxp) -> dict[str, Any]:
    """An S-expression's ``(name value)`` members by name.

    ``(device (vbd (uname ...)))`` becomes ``{"device": {"vbd": {"uname": ...}}}``; of several
    devices, ``device`` is a list. A member of more than one plain word keeps them in a list.
    """
    members: dict[str, Any] = {}
    for member in sxp[1:] if isinstance(sxp, list) else []:
        if not isinstance(member, list) or not member or not isinstance(member[0], str):
            continue
        name, rest = member[0], member[1:]
        value: Any
        if rest and all(isinstance(one, list) for one in rest):
            value = as_dict(member)
        else:
            value = rest[0] if len(rest) == 1 else rest
        if name not in members:
            members[name] = value
        elif isinstance(members[name], list):
            members[name].append(value)
        else:
            members[name] = [members[name], value]
    return members


def shim() -> bytes:
    """The shim's program, a shell script for dom0."""
    return Path(__file__).with_name(_SHIM).read_bytes()


def install_shim(dom0: Dom0, deadline: Deadline) -> None:
    """Make ``xm`` a command of a dom0 that has ``xl``.

    Raises:
        LabBroken: dom0 does not take it, or it does not run there.
    """
    dom0.run(
        "cat > /usr/sbin/xm && chmod 755 /usr/sbin/xm && xm version",
        deadline,
        stdin=shim(),
        check=True,
    )
