"""Results of this lab as crash reports: the record of a run, and one test's evidence.

``run.json`` is read by its own keys here, since ``lab.results`` is above this layer
(``lab/results/record.py`` describes it, schema version 1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lab.core.errors import UsageError
from lab.crash.draft import Draft
from lab.crash.facts import CrashFact, Kind
from lab.crash.text import head_text

READER = "lab run"

RECORD = "run.json"
MANIFEST = "evidence.json"

LIMIT = 64 << 20
"""Largest record that is read, in bytes; a run of a thousand tests has about 2 MiB."""

#: Property of a test in which the guest crashed; see ``lab.plugin.attempt``.
_CRASH = "pvlab.crash"
#: What never came to an end, of a test that the driver hung in; see there.
_STUCK = "pvlab.stuck"

_KEYS = re.compile(r'"schema_version"\s*:.{0,400}?"run_id"\s*:', re.DOTALL)
# What the lab writes of its own doings has these at its beginning: ``lab/evidence/manifest.py``,
# ``lab/evidence/operations.py``, ``lab/scenario/text.py``.
_ACCOUNT = re.compile(r'\s*\{\s*"schema_version"\s*:|(?:\s*#[^\n]*\n)*\s*pvlab_scenario\s*:')
_DURING = re.compile(r"crashed during (.{1,200}?): (.*)", re.DOTALL)
# A panic text that names module and function, as the lab's seeded defects print it.
_NAMED = re.compile(r"\(([a-z][\w-]{0,60}):([A-Za-z_]\w{0,120})\)")
_KINDS: tuple[tuple[str, Kind], ...] = (
    ("Kernel panic", "panic"),
    ("Oops", "oops"),
    ("BUG: soft lockup", "hang"),
    ("BUG", "oops"),
    ("general protection fault", "oops"),
    ("Fatal System Error", "bugcheck"),
    ("STOP: 0x", "bugcheck"),
    ("stopped answering", "hang"),
)


@dataclass(frozen=True, slots=True)
class Failed:
    """A test that failed in a run.

    Attributes:
        id: pytest's node id.
        evidence: its evidence folder, if it has one.
        fact: what the record says of its crash or hang; None when there was neither.
        build: the driver that it ran on, in words; None when the record names none.
    """

    id: str
    evidence: Path | None
    fact: CrashFact | None
    build: str | None


def recognise(head: bytes, name: str) -> bool:
    """Whether a file begins as a run's record does."""
    text = head_text(head)[:4000]
    return text.lstrip().startswith("{") and _KEYS.search(text) is not None


def is_account(head: bytes) -> bool:
    """Whether a file begins as one in which the lab tells of its own doings.

    It repeats what logs say, so that a crash would be counted again.
    """
    return _ACCOUNT.match(head_text(head)) is not None


def read(path: Path) -> list[CrashFact]:
    """Read a run's record.

    Returns:
        One fact for each test in which the guest crashed, or the driver hung.

    Raises:
        UsageError: it cannot be read, or is damaged.
    """
    return [fact for test in _tests(path) if (fact := _fact(test, path)) is not None]


def failed(folder: Path) -> list[Failed]:
    """The tests of a run that failed, with their evidence.

    Args:
        folder: the run's.

    Raises:
        UsageError: its record cannot be read, or is damaged.
    """
    found = []
    record = folder / RECORD
    for test in _tests(record):
        if test.get("outcome") not in ("failed", "error", "xfailed"):
            continue
        inside = test.get("evidence")
        evidence = None
        if isinstance(inside, str) and inside:
            parts = PurePosixPath(inside)
            # The record may come from anywhere: its paths must not lead out of its folder.
            if not parts.is_absolute() and ".." not in parts.parts:
                evidence = folder / parts
        found.append(_failed(test, evidence, record))
    return found


def run_of(evidence: Path) -> Path:
    """The run's folder of a test's evidence folder, which is ``RUN/tests/NAME``."""
    return evidence.resolve().parent.parent


def of_test(evidence: Path) -> Failed | None:
    """What the run's record says of the test whose evidence folder this is.

    Args:
        evidence: folder with an ``evidence.json``, in ``tests/`` of a run's folder.

    Returns:
        None when there is no record, or no such test in it.

    Raises:
        UsageError: the record is there and damaged.
    """
    record = run_of(evidence) / RECORD
    if not record.is_file():
        return None
    for test in _tests(record):
        inside = test.get("evidence")
        if isinstance(inside, str) and PurePosixPath(inside).name == evidence.resolve().name:
            return _failed(test, evidence, record)
    return None


def driver_build(path: Path) -> str | None:
    """The driver that a run tested, in words: name, version and the start of its hash.

    Args:
        path: a run's record.

    Raises:
        UsageError: it cannot be read, or is damaged.
    """
    return _build(_load(path))


def _failed(test: Mapping[str, Any], evidence: Path | None, record: Path) -> Failed:
    return Failed(str(test.get("id", "")), evidence, _fact(test, record), test["_build"])


def _build(data: Mapping[str, Any], which: str = "driver") -> str | None:
    """The driver in words.

    Args:
        data: the record.
        which: ``driver``, or ``baseline`` for the one that it was compared with.
    """
    driver = data.get(which)
    if not isinstance(driver, Mapping):
        return None
    words = [str(driver.get(key, "")) for key in ("name", "version")]
    words.append(str(driver.get("sha256", ""))[:12])
    return " ".join(word for word in words if word) or None


def _load(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > LIMIT:
            raise UsageError(f"{path}: larger than {LIMIT >> 20} MiB")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    # RecursionError: arrays nested too deep for the parser.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: damaged record of a run: {str(error)[:120]}") from None
    if not isinstance(data, Mapping):
        raise UsageError(f"{path}: not the record of a run")
    return data


def _tests(path: Path) -> Iterator[Mapping[str, Any]]:
    data = _load(path)
    tests = data.get("tests")
    builds = {which: _build(data, which) for which in ("driver", "baseline")}
    for test in tests if isinstance(tests, list) else []:
        if isinstance(test, Mapping):
            yield {**test, "_system": data.get("guest_label"), "_build": builds[_ran_on(test)],
                   "_started": data.get("started")}  # fmt: skip


def _ran_on(test: Mapping[str, Any]) -> str:
    """Which of the record's drivers a test ran on: in a comparison it took turns."""
    turn = test.get("turn")
    baseline = isinstance(turn, Mapping) and turn.get("driver") == "baseline"
    return "baseline" if baseline else "driver"


def _fact(test: Mapping[str, Any], path: Path) -> CrashFact | None:
    properties = test.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    crash, stuck = known.get(_CRASH), known.get(_STUCK)
    during = None
    if isinstance(crash, str) and crash:
        during = _DURING.search(crash)
        message = during[2].strip() if during else crash
        kind: Kind = next((kind for words, kind in _KINDS if words in message), "unknown")
        draft = Draft(READER, path.name, kind)
    elif isinstance(stuck, str) and stuck:
        message = str(test.get("message") or "")
        draft = Draft(READER, path.name, "hang")
        draft.put("stuck", stuck, 0)
    else:
        return None
    draft.put("message", message, 0)
    if named := _NAMED.search(message):
        draft.put("module", named[1], 0)
    for name, key in (("system", "_system"), ("when", "_started")):
        if isinstance(value := test.get(key), str):
            draft.put(name, value, 0)
    draft.note(f"test: {test.get('id', '')}")
    if during:
        draft.note(f"during {during[1]}")
    if test.get("_build"):
        draft.note(f"driver: {test['_build']}")
    fact = draft.fact()
    at = f"test {test.get('id', '')}"
    return replace(fact, sources={name: replace(one, at=at) for name, one in fact.sources.items()})
