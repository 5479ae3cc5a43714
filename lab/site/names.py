"""Where each page is: names that any id gives, and no id can lead out of."""

from __future__ import annotations

import re

from lab.evidence.slug import slug
from lab.site.model import Key, Mark, Result

TONIGHT = "index.html"
MATRIX = "matrix.html"
TESTS = "tests.html"
RUNS = "runs.html"
BUCKETS = "buckets.html"
GATES = "gates.html"
MUTANTS = "mutants.html"
PERFORMANCE = "performance.html"
SEARCH = "search.html"

SECTIONS = (
    ("Tonight", TONIGHT),
    ("Matrix", MATRIX),
    ("Tests", TESTS),
    ("Runs", RUNS),
    ("Buckets", BUCKETS),
    ("Gates", GATES),
    ("Mutants", MUTANTS),
    ("Performance", PERFORMANCE),
    ("Search", SEARCH),
)

PART_LINES = 2_000
"""Lines of a log on one page: more make a page slow to open."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")


def file_name(name: str) -> str:
    """A file name of an id that comes from anywhere: itself where it is harmless."""
    return name if _PLAIN.fullmatch(name) else slug(name)


def night_page(name: str, last: str) -> str:
    """Of a night.

    Args:
        name: of the night.
        last: the last night's, which is the first page.
    """
    return TONIGHT if name == last else f"night/{file_name(name)}.html"


def matrix_page(number: int) -> str:
    """Of a part of the matrix, counted from 0, the newest nights."""
    return MATRIX if number == 0 else f"matrix-{number + 1}.html"


def test_page(key: Key) -> str:
    """Of a test's history."""
    return f"test/{slug(f'{key.test} {key.place}')}.html"


def run_page(run: str) -> str:
    """Of a run."""
    return f"run/{file_name(run)}.html"


def failure_page(result: Result) -> str | None:
    """Of a failure; None for a result that needs no look."""
    if not (result.mark.bad or result.mark in (Mark.XPASSED, Mark.KNOWN)):
        return None
    return f"failure/{_failure(result)}.html"


def log_page(result: Result, log: str, part: int) -> str:
    """Of a part of a failure's log, counted from 0."""
    return f"log/{_failure(result)}-{file_name(log)}-{part + 1}.html"


def bucket_page(key: str) -> str:
    """Of a crash bucket."""
    return f"bucket/{file_name(key)}.html"


def gate_page(id: str) -> str:
    """Of a gate."""
    return f"gate/{file_name(id)}.html"


def _failure(result: Result) -> str:
    return f"{file_name(result.run)}-{slug(f'{result.key.test} {result.key.place}')}"
