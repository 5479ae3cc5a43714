"""A dom0 that answers from transcripts: what was typed there, what came, and how it ended.

A transcript is a text file::

    source: where the format of what is printed comes from
    $ xm block-attach 7 phy:/dev/vg00/x /dev/hdc w
    ~ 0.5
    | a line of standard output
    ! a line of standard error
    = 1
    $ ...

``~`` waits, in seconds; ``=`` is the exit status, 0 when left out. A command that stands there
several times is answered in that order, and the last answer is kept. The commands are run by a
real shell over programs that look the answer up, so the lab's own scripts run as they are.

A command that a transcript does not have fails the test, but for two that answer as the real
ones do when there is nothing: ``xenstore-ls`` and ``xenstore-read`` of a path, and ``dmesg``.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from xen_fakes import ShellDom0

PROGRAMS = ("xl", "xm", "xenstore-ls", "xenstore-read", "dmesg", "service")

_PROGRAM = r"""#!/bin/sh
name=${0##*/}
play=${0%/*}/../play
sum=$(printf '%s\n' "$name" "$@" | cksum)
answers=$play/${sum%% *}
if [ ! -d "$answers" ]; then
  case $name in
    dmesg) exit 0 ;;
    xenstore-ls)
      [ "$1" != -f ] || shift
      echo "xenstore-ls: xs_directory ($1): No such file or directory" >&2; exit 1 ;;
    xenstore-read) echo "xenstore-read: couldn't read path $1" >&2; exit 1 ;;
  esac
  echo "$name $*" >>"$play/unknown"
  echo "the transcript has no: $name $*" >&2
  exit 127
fi
echo "$name $*" >>"$play/asked"
read -r n <"$answers/next"
[ -e "$answers/$((n + 1)).out" ] && echo $((n + 1)) >"$answers/next"
read -r wait status <"$answers/$n.end"
[ "$wait" = 0 ] || sleep "$wait"
cat "$answers/$n.err" >&2
cat "$answers/$n.out"
exit "$status"
"""


@dataclass
class Exchange:
    """One command and its answer."""

    words: list[str]
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    wait_s: str = "0"
    status: int = 0


@dataclass
class Transcript:
    """A transcript's head and exchanges."""

    source: str
    exchanges: list[Exchange]

    @classmethod
    def read(cls, path: Path) -> Transcript:
        """Parse a transcript; every one must say where its format comes from."""
        source = ""
        exchanges: list[Exchange] = []
        for number, line in enumerate(path.read_text().split("\n"), 1):
            mark, _, rest = line.partition(" ")
            if line.startswith("source: "):
                source += line.removeprefix("source: ")
            elif not line or mark == "#":
                continue
            elif mark == "$":
                exchanges.append(Exchange(shlex.split(rest)))
            elif mark == "|":
                exchanges[-1].out.append(rest)
            elif mark == "!":
                exchanges[-1].err.append(rest)
            elif mark == "~" and re.fullmatch(r"[\d.]+", rest):
                exchanges[-1].wait_s = rest
            elif mark == "=" and rest.isdecimal():
                exchanges[-1].status = int(rest)
            else:
                raise ValueError(f"{path.name}:{number}: not a line of a transcript: {line}")
        if not source:
            raise ValueError(f"{path.name}: does not say where its format comes from")
        return cls(source, exchanges)


class TranscriptDom0(ShellDom0):
    """dom0 as transcripts have it."""

    def __init__(self, folder: Path, *transcripts: Path, shell: str = "/bin/sh") -> None:
        super().__init__(folder / "bin", shell)
        self._play = folder / "play"
        self._play.mkdir()
        self.tools.mkdir()
        for name in PROGRAMS:
            program = self.tools / name
            program.write_text(_PROGRAM)
            program.chmod(0o755)
        for path in transcripts:
            for exchange in Transcript.read(path).exchanges:
                self._add(exchange)

    def _add(self, exchange: Exchange) -> None:
        assert exchange.words[0] in PROGRAMS, exchange.words
        answers = self._play / str(_cksum("".join(f"{word}\n" for word in exchange.words)))
        answers.mkdir(exist_ok=True)
        number = len(list(answers.glob("*.out"))) + 1
        (answers / "next").write_text("1\n")
        (answers / f"{number}.out").write_text("".join(f"{line}\n" for line in exchange.out))
        (answers / f"{number}.err").write_text("".join(f"{line}\n" for line in exchange.err))
        (answers / f"{number}.end").write_text(f"{exchange.wait_s} {exchange.status}\n")

    @property
    def asked(self) -> list[str]:
        """The commands that were answered, in their order."""
        file = self._play / "asked"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def unknown(self) -> list[str]:
        """The commands that no transcript has."""
        file = self._play / "unknown"
        return file.read_text().splitlines() if file.exists() else []


def _cksum(text: str) -> int:
    """The checksum of POSIX's cksum: a CRC-32 of another bit order, with the length added."""
    data = text.encode()
    length = len(data)
    while length:
        data += bytes([length & 0xFF])
        length >>= 8
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7) & 0xFFFFFFFF if crc & 0x80000000 else crc << 1
    return crc ^ 0xFFFFFFFF
