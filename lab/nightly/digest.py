"""The digest of a night: what is new first, then what is not, then what did not run.

A test is compared with the last time that anything could be said of it on the same profile with
the same driver in the same suite, which may be longer ago than one night.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from lab.core.errors import Blame, ExitCode
from lab.results import text
from lab.results.record import REPORT_NAME, Outcome

NAMED = 40
"""How many tests or items of one kind are named before the rest is only counted."""


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What is compared from night to night.

    Attributes:
        profile: of ``lab.toml``: host and guest.
        driver: its name in the matrix, whatever its version.
        suite: of the matrix.
        test: pytest's node id.
    """

    profile: str
    driver: str
    suite: str
    test: str

    def __str__(self) -> str:
        return f"{self.test.rpartition('/')[2]} ({self.driver} on {self.profile}, {self.suite})"


@dataclass(frozen=True, slots=True)
class Seen:
    """How a test ended.

    Attributes:
        subject: the test, and on what.
        outcome: in pytest's words.
        blame: whose fault it was.
        message: one line.
        run: the run's name.
        when: the run's begin.
    """

    subject: Subject
    outcome: Outcome
    blame: Blame | None
    message: str
    run: str
    when: datetime

    @property
    def driver_failed(self) -> bool:
        """Whether the driver is to blame for it."""
        return self.outcome.bad and self.blame is Blame.DRIVER

    @property
    def passed(self) -> bool:
        """Whether the test passed, or failed as the errata say."""
        return self.outcome in (Outcome.PASSED, Outcome.XFAILED) and self.blame is not Blame.LAB

    @property
    def decided(self) -> bool:
        """Whether it says something about the driver."""
        return self.driver_failed or self.passed

    @property
    def lab_failed(self) -> bool:
        """Whether the lab is to blame for it."""
        return self.blame is Blame.LAB and self.outcome is not Outcome.SKIPPED

    @property
    def open(self) -> bool:
        """Whether somebody has to look whose fault it was."""
        unexpected = self.outcome is Outcome.XPASSED and self.blame is not None
        return unexpected or (self.outcome.bad and self.blame in (None, Blame.UNDECIDED))


@dataclass(frozen=True, slots=True)
class Change:
    """A test tonight, and the time before.

    Attributes:
        now: tonight.
        before: the last time it said something; None when it never did.
    """

    now: Seen
    before: Seen | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """An item that the lab did not get done, or only with more than one attempt.

    Attributes:
        key: the item.
        message: what the lab said last.
        attempts: how often it ran.
        settled: whether it was done in the end.
    """

    key: str
    message: str
    attempts: int
    settled: bool


@dataclass(frozen=True, slots=True)
class NotRun:
    """An item that there was no time for."""

    key: str
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Digest:
    """A night in short.

    Attributes:
        name: of the night.
        began: when.
        seconds: from begin to end.
        guests: what the guests were, honestly.
        items: how many items were planned.
        done: how many of them ran.
        tests: tests that ran.
        failing: driver failures that are new, or of tests that say something for the first time.
        fixed: driver failures that are no more.
        open: failures of which nobody can say whose they are.
        still: driver failures that were there the time before.
        lab_tests: tests that the lab failed on.
        troubles: items that the lab failed on.
        not_run: items that were planned, or could have been, and did not run.
    """

    name: str
    began: datetime
    seconds: float
    guests: tuple[str, ...]
    items: int
    done: int
    tests: int
    failing: tuple[Change, ...]
    fixed: tuple[Change, ...]
    open: tuple[Change, ...]
    still: tuple[Change, ...]
    lab_tests: tuple[Seen, ...]
    troubles: tuple[Trouble, ...]
    not_run: tuple[NotRun, ...]

    @property
    def news(self) -> bool:
        """Whether anything is new about a driver, an item has no result, or nothing ran."""
        told = self.failing or self.fixed or self.open or self.unsettled
        return bool(told) or not self.tests

    @property
    def unsettled(self) -> tuple[Trouble, ...]:
        """Items without a result."""
        return tuple(one for one in self.troubles if not one.settled)

    @property
    def headline(self) -> str:
        """The night in a line, what is new first."""
        parts = [
            _count(len(self.failing), "new failure"),
            _count(len(self.fixed), "fixed", plural="fixed"),
            _count(len(self.open), "undecided", plural="undecided"),
            _count(len(self.still), "still failing", plural="still failing"),
            _count(len(self.unsettled), "item") + " lost to the lab" if self.unsettled else "",
        ]
        said = ", ".join(part for part in parts if part)
        tests = _count(self.tests, "test") or "no test"
        ran = f"{tests} in {self.done} of {_count(self.items, 'item') or 'no items'}"
        return f"{said or 'nothing new'}; {ran}"

    @property
    def exit_code(self) -> ExitCode:
        """1 when a driver failed, whatever befell the rest; 3 when the lab or nobody can say;
        0 when all that ran passed."""
        if self.failing or self.still:
            return ExitCode.DRIVER_FAILED
        if self.open or self.unsettled or self.lab_tests or not self.tests:
            return ExitCode.LAB_BROKEN
        return ExitCode.PASS


@dataclass(frozen=True, slots=True)
class Night:
    """What a digest is made from, beside the tests.

    Attributes: as ``Digest``.
    """

    name: str
    began: datetime
    seconds: float
    guests: tuple[str, ...]
    items: int
    done: int
    troubles: tuple[Trouble, ...] = ()
    not_run: tuple[NotRun, ...] = ()


def digest(night: Night, tonight: Iterable[Seen], before: Mapping[Subject, Seen]) -> Digest:
    """Compare a night with what was before it.

    Args:
        night: the night.
        tonight: how its tests ended.
        before: of earlier nights, the last time of each test that decided something.
    """
    seen = sorted(tonight, key=lambda one: one.subject)
    changes = [Change(one, before.get(one.subject)) for one in seen]
    failed = [one for one in changes if one.now.driver_failed]
    return Digest(
        name=night.name,
        began=night.began,
        seconds=night.seconds,
        guests=night.guests,
        items=night.items,
        done=night.done,
        tests=sum(one.outcome is not Outcome.SKIPPED for one in seen),
        failing=tuple(one for one in failed if not _failed_before(one)),
        fixed=tuple(one for one in changes if one.now.passed and _failed_before(one)),
        open=tuple(one for one in changes if one.now.open),
        still=tuple(one for one in failed if _failed_before(one)),
        lab_tests=tuple(one for one in seen if one.lab_failed),
        troubles=night.troubles,
        not_run=night.not_run,
    )


def as_text(told: Digest) -> str:
    """The digest as text, for a terminal, a mail or a webhook."""
    rendered = _environment().get_template("digest.txt.j2").render(digest=told, named=NAMED)
    return rendered.strip() + "\n"


def as_html(told: Digest, *, base: str | None = None) -> str:
    """The digest as a page of its own.

    Args:
        told: the digest.
        base: URL or relative path of the results folder, ending in a slash, for links to runs;
            no links when None.
    """
    style = resources.files("lab.nightly").joinpath("templates", "digest.css").read_text("utf-8")
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    link: Callable[[str], str] | None = None
    if base is not None:
        link = lambda run: f"{base}{quote(run)}/{REPORT_NAME}"  # noqa: E731
    return (
        _environment()
        .get_template("digest.html.j2")
        .render(
            digest=told,
            named=NAMED,
            link=link,
            style=Markup(style),  # noqa: S704 - our own file
            style_hash=f"sha256-{hashed}",
        )
    )


def latest(seen: Iterable[Seen]) -> dict[Subject, Seen]:
    """Of each test, the last time that decided something."""
    found: dict[Subject, Seen] = {}
    for one in seen:
        old = found.get(one.subject)
        if one.decided and (old is None or old.when < one.when):
            found[one.subject] = one
    return found


def _failed_before(change: Change) -> bool:
    return change.before is not None and change.before.driver_failed


def _count(number: int, word: str, *, plural: str = "") -> str:
    if not number:
        return ""
    return f"{number} {word if number == 1 else plural or word + 's'}"


def _shown(value: object) -> object:
    """Every text that the templates print goes through here: guests can print anything."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, str | Subject):
        return text.visible(str(value))
    return value


def _more(members: Sequence[object]) -> int:
    return max(0, len(members) - NAMED)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lab.nightly"),
        autoescape=select_autoescape(["html.j2"], default_for_string=True),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": text.duration, "more": _more}
    return environment
