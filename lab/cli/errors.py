"""How an error leaves a command: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

from lab.core.errors import ExitCode, PvlabError
from lab.core.paths import cache_dir

INTERRUPTED = 130
"""128 + SIGINT, as shells report it (POSIX.1-2017, XCU 2.8.2)."""


def run_guarded(command: Callable[[], object]) -> int:
    """Run a command and turn whatever it does into an exit code.

    Args:
        command: returns the exit code, or anything else for success.

    Returns:
        0 passed, 1 the driver failed, 2 bad input, 3 the lab is broken, 130 interrupted.
    """
    try:
        code = command()
    except PvlabError as error:
        say(error.message, hint=error.hint)
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(ExitCode.USAGE)
    except BrokenPipeError:
        # The reader of our output went away, as in `pvlab ... | head`.
        sys.stderr.close()
        return int(ExitCode.LAB_BROKEN)
    except Exception as error:
        if (refusal := refused_command_line(error)) is not None:
            say(refusal, hint="pvlab --help shows what there is")
            return int(ExitCode.USAGE)
        say(
            f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            hint=f"details: {save_traceback(error)}",
        )
        return int(ExitCode.LAB_BROKEN)
    if code == INTERRUPTED:
        # Inside a typer application: it returns this code in place of KeyboardInterrupt.
        say("interrupted")
    return code if isinstance(code, int) else int(ExitCode.PASS)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """What asks this process to end has it tidy up, as an interrupt does; what it was told to
    ignore, as ``nohup`` does, it ignores."""

    def end(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = {
        number: signal.signal(number, end)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def refused_command_line(error: Exception) -> str | None:
    """What click, or the copy of it inside typer, refused about the command line.

    Recognised by shape: which of the two raises it depends on typer's version.
    """
    format_message: Callable[[], str] | None = getattr(error, "format_message", None)
    if format_message is None or not hasattr(error, "exit_code"):
        return None
    return " ".join(format_message().split())


def say(message: str, *, hint: str = "") -> None:
    """Print one line for people on stderr; whole, whichever threads do."""
    line = f"pvlab: {message}" + (f" ({hint})" if hint else "")
    print(f"{line}\n", end="", file=sys.stderr)


def save_traceback(error: BaseException) -> Path:
    """Write an error's traceback to a file and return its path."""
    text = "".join(traceback.format_exception(error))
    for folder in (cache_dir() / "errors", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", prefix="pvlab-", suffix=".txt", dir=folder, delete=False, encoding="utf-8"
            ) as file:
                file.write(text)
                return Path(file.name)
        except OSError:
            continue
    return Path("nowhere: neither the cache nor the temporary folder can be written")
