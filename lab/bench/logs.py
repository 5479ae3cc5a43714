"""How fast and in how much memory DbgView's logs are read (``lab.crash.dbgview_log``).

No machine is needed. The log is written and read back, the reading in a process of its own,
so that its memory is not mixed up with the bench's.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab.bench.figure import Figure
from lab.core.errors import LabBroken
from lab.crash import dbgview_log

MB = 1_000_000

TARGET_MB_PER_S = 60.0
TARGET_MIB = 200.0

LOG_MB = 1000
"""Size of the log by default, in MB: a night of a checked build under load."""

# What the drivers print over and over, in the form of the checked builds of November 2007.
_PRINTS = (
    b"XenVbd --> XenVbd_HwScsiStartIo",
    b"XenVbd     sector = 123456, count = 8",
    b"XenVbd <-- XenVbd_HwScsiStartIo",
    b"XenPCI     Received event on port 4",
    b"XenVbd     Backend State Changed to Connected",
)
_LINES_AT_ONCE = 20_000
_GAP_EVERY = 50_021  # lines; DbgView loses some when they come too fast
_RESTART_EVERY = 4_000_037  # lines; a reboot


def figures(scratch: Path, *, megabytes: int, say: Callable[[str], None]) -> list[Figure]:
    """Write a log, read it, and tell what it took.

    Args:
        scratch: folder with room for the log.
        megabytes: its size, in 10^6 bytes.
        say: told in lines what happens.

    Raises:
        LabBroken: the reading failed.
    """
    log = scratch / "dbgview.log"
    say(f"writing a log of {megabytes} MB")
    size = write_log(log, megabytes * MB)
    say("reading it")
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(log)], capture_output=True, text=True, check=False
    )
    log.unlink()
    if done.returncode:
        raise LabBroken(f"the log could not be read: {done.stderr.strip()[-300:]}")
    told = json.loads(done.stdout)
    note = f"{megabytes} MB, in a process of its own"
    return [
        Figure(
            name="DbgView log read",
            unit="MB/s",
            samples=(size / MB / told["seconds"],),
            target=TARGET_MB_PER_S,
            at_least=True,
            note=note,
        ),
        Figure(
            name="memory to read it",
            unit="MiB",
            samples=(told["peak_kib"] / 1024,),
            target=TARGET_MIB,
            note="peak resident size of that process",
        ),
    ]


def write_log(path: Path, size: int) -> int:
    """Write a log as DbgView does, with gaps and restarts in its numbers.

    Args:
        path: the file.
        size: bytes to reach.

    Returns:
        Bytes written.
    """
    written = line = number = 0
    with path.open("wb") as file:
        while written < size:
            lines = []
            for _ in range(_LINES_AT_ONCE):
                line += 1
                number = 1 if line % _RESTART_EVERY == 0 else number + 1
                if line % _GAP_EVERY == 0:
                    number += 7
                text = _PRINTS[line % len(_PRINTS)]
                lines.append(b"%08d\t%d.%08d\t%s\t\r\n" % (number, line // 5000, line, text))
            written += file.write(b"".join(lines))
    return written


def _read(path: Path) -> None:
    started = time.monotonic()
    facts = dbgview_log.read(path)
    seconds = time.monotonic() - started
    # proc(5): the peak of this program alone; getrusage(2) counts what ran before exec too.
    peak = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not facts or peak is None:
        raise LabBroken("nothing was read")
    json.dump({"seconds": seconds, "peak_kib": int(peak[1])}, sys.stdout)


if __name__ == "__main__":
    _read(Path(sys.argv[1]))
