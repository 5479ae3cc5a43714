"""Reading the clocks of a place, so that a failure's logs can be put on one of them.

One command in dom0 does it. This machine knows that whatever dom0 showed, it showed between the
command's start and its end.
"""

from __future__ import annotations

import re
import secrets
import shlex
import time
from typing import TYPE_CHECKING

from lab.evidence.operations import DOM0_KERNEL, GUEST_KERNEL, Clocks, Reading

if TYPE_CHECKING:
    from lab.core.deadline import Deadline
    from lab.place.place import Place

LINE_SECONDS = 2.0
"""How long a guest's kernel may take to have a line on its serial port: it prints a line before
it goes on (Linux, kernel/printk/printk.c, console_unlock), one port access a character, each of
which an emulated processor takes some milliseconds for."""

TAIL_BYTES = 4096
"""Of the guest's serial log: more than its longest line (LOG_LINE_MAX, 1024)."""

# The mark is of level debug (kmsg(4): <7>), so that no console shows it. The guest's log must
# not have changed between its reading and its time.
_SCRIPT = r"""
echo '<7>@MARK@' >/dev/kmsg
echo "now $(date +%s.%N)"
echo "mark $(dmesg | grep -F '@MARK@' | tail -n 1)"
before=$(stat -c '%s %.9Y' @SERIAL@)
last=$(tail -c @BYTES@ @SERIAL@ | tr -d '\r' | grep . | tail -n 1)
[ "$before" = "$(stat -c '%s %.9Y' @SERIAL@)" ] && echo "written ${before#* }" && echo "last $last"
"""

_SECONDS = r"(\d{1,12}\.\d{1,9})"
_KERNEL = re.compile(r"\[ *(\d{1,9}\.\d{6})\]")


def read_clocks(place: Place, deadline: Deadline) -> Clocks:
    """What the clocks of a place show now.

    Args:
        place: with a dom0 that answers; its guest may be dead.
        deadline: for the one command.

    Raises:
        LabBroken: dom0 is gone.
        DeadlineExpired: it does not answer in time.
    """
    mark = f"pvlab: clock mark {secrets.token_hex(6)}"
    script = _SCRIPT
    for word, value in {
        "@MARK@": mark,
        "@SERIAL@": shlex.quote(place.access.serial_log),
        "@BYTES@": str(TAIL_BYTES),
    }.items():
        script = script.replace(word, value)
    before = time.time()
    said = place.dom0.run(script, deadline).stdout
    return parse(said, before, time.time())


def parse(said: str, before: float, after: float) -> Clocks:
    """Readings out of what dom0 said.

    Args:
        said: the script's output.
        before: this machine's clock when it was asked, in s since 1970.
        after: when it had answered.
    """
    if after < before:
        return Clocks(problems=("this machine's clock was set back meanwhile",))
    words: dict[str, str] = {}
    for line in said.splitlines():
        name, _, value = line.partition(" ")
        words.setdefault(name, value)
    readings: list[Reading] = []
    problems: list[str] = []
    for clock, reading in (
        (DOM0_KERNEL, _shown(DOM0_KERNEL, _KERNEL.match(words.get("mark", "")), before, after)),
        (GUEST_KERNEL, _guest(words, before, after)),
    ):
        if reading is not None:
            readings.append(reading)
        else:
            problems.append(f"{clock}: not to be had")
    return Clocks(readings=tuple(readings), problems=tuple(problems))


def _shown(
    clock: str, found: re.Match[str] | None, earliest: float, latest: float
) -> Reading | None:
    if found is None:
        return None
    return Reading(clock=clock, shows=float(found[1]), earliest=earliest, latest=latest)


def _guest(words: dict[str, str], before: float, after: float) -> Reading | None:
    """When the guest's last line was printed: its log was written then, by dom0's time of day."""
    now = re.fullmatch(_SECONDS, words.get("now", ""))
    written = re.fullmatch(_SECONDS, words.get("written", ""))
    if now is None or written is None:
        return None
    ago = float(now[1]) - float(written[1])
    return _shown(
        GUEST_KERNEL,
        _KERNEL.match(words.get("last", "")),
        before - ago - LINE_SECONDS,
        after - ago,
    )
