"""Recognising a file in a process of its own, with bounds.

Started as ``python -m lab.media.probe FILE``. The libraries that read discs and programs were
not written against hostile ones: those can make them loop or take all memory. What the child
says is one JSON object.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from lab.core.errors import LabBroken, UsageError
from lab.media.kinds import Identity, MediaKind, Unusable

CPU_SECONDS = 120
"""Processor time a file may take to be recognised."""

_MEMORY = 2 << 30
_WALL_SECONDS = 10 * CPU_SECONDS


def identify_apart(path: Path) -> Identity:
    """What ``recognise.identify`` says of a file, with no harm done if it is hostile.

    Raises:
        Unusable: it is nothing the lab can use.
        UsageError: it cannot be read.
        LabBroken: the child could not be started.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lab.media.probe", str(path)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unusable(path.name, "is damaged: reading it does not end") from None
    except OSError as error:
        raise LabBroken(f"cannot start a process to look at {path}: {error.strerror}") from None
    try:
        said = json.loads(done.stdout.decode())
        if "error" in said:
            raise UsageError(f"cannot read {path}: {said['error']}")
        if "what" in said:
            raise Unusable(path.name, said["what"], map(MediaKind, said["wanted"]))
        return Identity.model_validate(said["identity"])
    except (ValueError, KeyError, TypeError, ValidationError):
        how = f"status {done.returncode}" if done.returncode >= 0 else f"signal {-done.returncode}"
        raise Unusable(path.name, f"is damaged: reading it breaks the reader ({how})") from None


def main(argument: str) -> int:
    """Look at one file and say what it is on stdout."""
    from lab.media.recognise import identify

    path = Path(argument)
    said: dict[str, object]
    try:
        said = {"identity": identify(path).model_dump(mode="json")}
    except Unusable as error:
        said = {"what": error.what, "wanted": list(error.wanted)}
    except OSError as error:
        said = {"error": error.strerror or str(error)}
    except (MemoryError, RecursionError):
        said = {"what": "is damaged: reading it takes all memory", "wanted": []}
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raise SystemExit(main(sys.argv[1]))
