"""The pages as HTML, one function a kind of page."""

from __future__ import annotations

import base64
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps

from lab.crash.facts import Source as FactSource
from lab.results.page import environment, own_text, source_hash, verbatim
from lab.results.record import JUNIT_NAME, RECORD_NAME, REPORT_NAME
from lab.site import charts, names
from lab.site import evidence as evidence_module
from lab.site.compare import WINDOW, Change, Stats, compare, stats
from lab.site.evidence import Evidence, Log
from lab.site.model import Bucket, Gate, Key, Mark, Night, Result, Run, Site
from lab.site.search import index
from lab.site.timeline import Source, Timeline, timeline

PACKAGE = "lab.site"

SIGNS: Mapping[Mark, str] = {
    Mark.FAILED: "\N{MULTIPLICATION X}",
    Mark.UNDECIDED: "?",
    Mark.XPASSED: "!",
    Mark.KNOWN: "k",
    Mark.PASSED: "\N{CHECK MARK}",
    Mark.LAB: "\N{BLACK UP-POINTING TRIANGLE}",
    Mark.SKIPPED: "\N{EN DASH}",
}
WORDS: Mapping[Mark, str] = {
    Mark.FAILED: "driver failed",
    Mark.UNDECIDED: "undecided",
    Mark.XPASSED: "passed unexpectedly",
    Mark.KNOWN: "known failure",
    Mark.PASSED: "passed",
    Mark.LAB: "lab broken",
    Mark.SKIPPED: "skipped",
}
TITLES: Mapping[Change, str] = {
    Change.REGRESSION: "Regressions",
    Change.NEW_FAILURE: "New failures",
    Change.UNDECIDED: "Undecided",
    Change.LAB: "The lab broke",
    Change.XPASSED: "Passed although a failure is known",
    Change.STILL: "Still failing",
    Change.FIXED: "Fixed",
    Change.NOT_RUN: "Ran last night, not tonight",
    Change.KNOWN: "Known failures",
}
FATES = {"killed": "\N{CHECK MARK}", "survived": "\N{MULTIPLICATION X}",
         "lab": "\N{BLACK UP-POINTING TRIANGLE}", "undecided": "?"}  # fmt: skip

MATRIX_NIGHTS = 30
"""Nights on one page of the matrix: its cells are what makes a page slow."""

TAIL_LINES = 40
"""Last lines that are shown of a log without a common clock."""

MOST_TELLING = 6


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        path: relative to the site.
        html: it.
    """

    path: str
    html: str


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the matrix.

    Attributes:
        key: which test, where.
        label: short name.
        place: where it ran; empty when there is one place only.
        area: of the test.
        cells: one a night, oldest first; None where it did not run.
        quiet: whether it passed in every night that it ran in.
    """

    key: Key
    label: str
    place: str
    area: str
    cells: tuple[Result | None, ...]
    quiet: bool


class Pages:
    """Renders a site.

    Args:
        site: what it shows.
        out: folder that it will be in, for links to evidence.
        written: said at the foot of every page.
    """

    def __init__(self, site: Site, out: Path, written: datetime | None = None) -> None:
        self.site = site
        self._out = out
        self._style = own_text(PACKAGE, "site.css")
        self._script = own_text(PACKAGE, "site.js")
        self._written = (written or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M")
        self._last = site.nights[-1].name if site.nights else ""

    @property
    def policy(self) -> str:
        """The content security policy of every page."""
        style, script = source_hash(self._style), source_hash(self._script)
        return (
            f"default-src 'none'; style-src '{style}'; script-src '{script}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        )

    @cached_property
    def histories(self) -> Mapping[Key, tuple[tuple[Night, Result], ...]]:
        """Each test's nights, oldest first."""
        return {key: tuple(self.site.history(key)) for key in self.site.keys}

    @cached_property
    def statistics(self) -> Mapping[Key, Stats]:
        """How often each test failed."""
        found = {key: stats(self.site, history) for key, history in self.histories.items()}
        known = (one.key for run in self.site.others for one in run.results)
        return {key: stats(self.site, ()) for key in known} | found

    def all(self) -> Iterator[Page]:
        """Every page, the first ones first."""
        for night in reversed(self.site.nights):
            yield self.night(night)
        if not self.site.nights:
            yield self._page(names.TONIGHT, "empty", "Tonight")
        yield from self.matrix()
        yield self._page(names.SEARCH, "search", "Search",
                         index=htmlsafe_json_dumps(index(self.site)))  # fmt: skip
        yield self.tests()
        yield self._page(
            names.RUNS, "runs", "Runs", nights=self.site.nights, others=self.site.others
        )
        yield self._page(names.BUCKETS, "buckets", "Buckets", buckets=self.site.buckets)
        yield self._page(names.GATES, "gates", "Gates", gates=self.site.gates)
        yield self.mutants()
        yield self.performance()
        for bucket in self.site.buckets:
            yield self.bucket(bucket)
        for gate in self.site.gates:
            yield self.gate(gate)
        for run in self.site.runs.values():
            yield self.run(run)
            for result in run.results:
                if names.failure_page(result) is not None:
                    yield from self.failure(result)
        for key in self.site.keys:
            yield self.test(key)

    # -- kinds of pages -------------------------------------------------------------------

    def night(self, night: Night) -> Page:
        """A night against the one before."""
        place = self.site.nights.index(night)
        differences = [one for one in compare(self.site, night) if one.change is not Change.SAME]
        counted = Counter(one.change.value for one in differences)
        return self._page(
            names.night_page(night.name, self._last),
            "night",
            "Tonight",
            night=night,
            last=night.name == self._last,
            before=self.site.nights[place - 1] if place else None,
            after=self.site.nights[place + 1] if night.name != self._last else None,
            counts={change.value: counted[change.value] for change in Change},
            groups=[
                (change, list(group))
                for change, group in groupby(differences, key=lambda one: one.change)
            ],
            titles=TITLES,
        )

    def matrix(self) -> Iterator[Page]:
        """Tests by nights, in parts of some nights each."""
        nights = self.site.nights
        parts = [
            nights[max(0, end - MATRIX_NIGHTS) : end]
            for end in range(len(nights), 0, -MATRIX_NIGHTS)
        ] or [()]
        for number, part in enumerate(parts):
            yield self._page(
                names.matrix_page(number),
                "matrix",
                "Matrix",
                nights=part,
                rows=self._rows(part),
                place_count=len({key.place for key in self.site.keys}),
                newer=names.matrix_page(number - 1) if number else "",
                older=names.matrix_page(number + 1) if number + 1 < len(parts) else "",
                short=_short,
            )

    def tests(self) -> Page:
        """All tests, those that fail most often first."""
        rows = [
            {"key": key, "stats": self.statistics[key], "last": self.histories[key][-1][1]}
            for key in sorted(
                self.site.keys, key=lambda key: (-self._share(self.statistics[key]), key)
            )
        ]
        return self._page(names.TESTS, "tests", "Tests", rows=rows, window=WINDOW)

    def test(self, key: Key) -> Page:
        """A test's history."""
        history = self.histories[key]
        last = history[-1][1]
        seconds = [one.seconds for _, one in history]
        allowed = last.expected_seconds
        return self._page(
            names.test_page(key),
            "test",
            "Tests",
            key=key,
            history=history,
            last=last,
            stats=self.statistics[key],
            chart=charts.durations(history, allowed),
            shortest=min(seconds),
            longest=max(seconds),
            late=0 if allowed is None else sum(one > allowed for one in seconds),
        )

    def run(self, run: Run) -> Page:
        """A run."""
        order = {mark: place for place, mark in enumerate(Mark)}
        links = [] if run.folder is None else [
            (name, self._href(run.folder / name, 1))
            for name in (REPORT_NAME, RECORD_NAME, JUNIT_NAME)
            if (run.folder / name).is_file()
        ]  # fmt: skip
        return self._page(
            names.run_page(run.id),
            "run",
            "Runs",
            run=run,
            results=sorted(run.results, key=lambda one: (order[one.mark], one.key)),
            links=links,
        )

    def failure(self, result: Result) -> Iterator[Page]:
        """A failure, and its logs."""
        evidence = evidence_module.read(result.evidence)
        line = timeline(evidence)
        telling = _telling(evidence, result)
        clocked = {clock.log for clock in line.clocks if clock.known}
        shown = {log.name for log in evidence.logs}
        yield self._page(
            names.failure_page(result) or "",
            "failure",
            "Tonight" if self.site.night_of.get(result.run) == self._last else "Runs",
            one=result,
            run=self.site.runs[result.run],
            stats=self.statistics[result.key],
            evidence=evidence,
            evidence_name=self._named(evidence.folder),
            evidence_href=self._href(evidence.folder, 1) if evidence.folder else "",
            line=line,
            sources_shown=_sources(line),
            telling=telling,
            telling_at={(log.name, number) for log, number, _ in telling},
            source_line=lambda source: _line_of(evidence, source),
            apart=[
                (log, _tail(log))
                for log in evidence.logs
                if log.name in evidence_module.LOGS and log.name not in clocked and log.lines
            ],
            pictures=[
                (name, base64.b64encode(data).decode(), _png_size(data))
                for name, data in evidence.pictures
            ],
            others=[
                piece
                for piece in (evidence.manifest.pieces if evidence.manifest else ())
                if piece.name not in shown
            ],
        )
        for log in evidence.logs:
            yield from self._log(result, log, {n for other, n, _ in telling if other is log})

    def bucket(self, bucket: Bucket) -> Page:
        """A crash bucket."""
        failures = [
            one
            for run in sorted(
                self.site.runs.values(), key=lambda run: (run.started, run.id), reverse=True
            )
            for one in run.results
            if one.bucket == bucket.key
        ]
        return self._page(
            names.bucket_page(bucket.key), "bucket", "Buckets", bucket=bucket, failures=failures
        )

    def gate(self, gate: Gate) -> Page:
        """A gate's verdict."""
        return self._page(
            names.gate_page(gate.id), "gate", "Gates", gate=gate, known_runs=self.site.runs
        )

    def mutants(self) -> Page:
        """What became of the mutants."""
        found = self.site.mutants
        killed = sum(one.fate == "killed" for one in found.mutants) if found else 0
        return self._page(
            names.MUTANTS,
            "mutants",
            "Mutants",
            mutants=found,
            killed=killed,
            fates=FATES,
            known_runs=self.site.runs,
        )

    def performance(self) -> Page:
        """Figures over nights."""
        drawn = [(one, charts.trend(one)) for one in self.site.trends if one.points]
        return self._page(
            names.PERFORMANCE, "performance", "Performance", trends=drawn, number=_number
        )

    # -- pieces ---------------------------------------------------------------------------

    def _log(self, result: Result, log: Log, telling: set[int]) -> Iterator[Page]:
        size = names.PART_LINES
        starts = range(0, max(len(log.lines), 1), size)
        parts = [
            (names.log_page(result, log.name, place), log.first + start)
            for place, start in enumerate(starts)
        ]
        for (path, first), start in zip(parts, starts, strict=True):
            yield self._page(
                path,
                "log",
                "Tonight" if self.site.night_of.get(result.run) == self._last else "Runs",
                one=result,
                log=log,
                first=first,
                lines=log.lines[start : start + size],
                parts=parts if len(parts) > 1 else [],
                telling=telling,
            )

    def _rows(self, nights: tuple[Night, ...]) -> list[_Row]:
        several = len({key.place for key in self.site.keys}) > 1
        rows = []
        for key in self.site.keys:
            cells = tuple(night.results.get(key) for night in nights)
            there = [cell for cell in cells if cell is not None]
            if not there:
                continue
            rows.append(
                _Row(
                    key=key,
                    label=key.test.rpartition("/")[2].partition("::")[2] or key.test,
                    place=key.place if several else "",
                    area=there[-1].area,
                    cells=cells,
                    quiet=all(cell.mark is Mark.PASSED for cell in there),
                )
            )
        return rows

    @cached_property
    def _pages_in_runs(self) -> Mapping[tuple[str, str], str]:
        """Pages by run and test."""
        return {
            (run.id, one.key.test): self._about(one)
            for run in self.site.runs.values()
            for one in run.results
        }

    def _about(self, result: Result) -> str:
        """The page that says most of a result."""
        if (page := names.failure_page(result)) is not None:
            return page
        return self._test_page(result.key) or names.run_page(result.run)

    def _test_page(self, key: Key) -> str:
        """A test's page; empty for one that no night had."""
        return names.test_page(key) if key in self.histories else ""

    def _page(self, path: str, template: str, section: str, **values: Any) -> Page:
        html = (
            environment(PACKAGE)
            .get_template(f"{template}.html.j2")
            .render(
                root="../" * path.count("/"),
                policy=self.policy,
                style=verbatim(self._style),
                script=verbatim(self._script),
                sections=names.SECTIONS,
                section=section,
                notice=self.site.notice,
                written=self._written,
                results_name=self.site.results_folder.name if self.site.results_folder else "",
                signs=SIGNS,
                words=WORDS,
                mark=Mark,
                night_page=lambda name: names.night_page(name, self._last),
                night_name=lambda run: self.site.night_of.get(run, ""),
                test_page=self._test_page,
                about=self._about,
                run_page=names.run_page,
                run_of=self.site.runs.get,
                failure_page=names.failure_page,
                bucket_page=names.bucket_page,
                gate_page=names.gate_page,
                page_in_run=lambda run, test: self._pages_in_runs.get((run, test)),
                log_page=_log_page,
                **values,
            )
        )
        return Page(path, html)

    def _href(self, target: Path, depth: int) -> str:
        """A link to a file among the results; empty when the site does not lie there too."""
        results = self.site.results_folder
        if results is None or not self._out.is_relative_to(results):
            return ""
        if not target.is_relative_to(results):
            return ""
        steps = "../" * depth + os.path.relpath(target, self._out)
        return environment(PACKAGE).filters["link"](steps)  # type: ignore[no-any-return]

    def _named(self, folder: Path | None) -> str:
        """An evidence folder for people."""
        results = self.site.results_folder
        if folder is None:
            return ""
        if results is not None and folder.is_relative_to(results):
            return str(folder.relative_to(results))
        return str(folder)

    @staticmethod
    def _share(found: Stats) -> float:
        return found.rate.failures / found.rate.attempts if found.rate.attempts else 0.0


def _log_page(result: Result, log: Log, number: int) -> str:
    """The page that has a line of a log."""
    return names.log_page(result, log.name, max(0, number - log.first) // names.PART_LINES)


def _telling(evidence: Evidence, result: Result) -> list[tuple[Log, int, str]]:
    """The lines that say most: where the crash facts come from, and what the message quotes."""
    found: dict[tuple[str, int], tuple[Log, int, str]] = {}

    def note(log: Log, number: int) -> None:
        text = log.lines[number - log.first].strip()
        if text:
            found.setdefault((log.name, number), (log, number, text))

    for fact in evidence.facts:
        for name in ("message", "code"):
            source = fact.sources.get(name)
            if source is not None and (place := _line_of(evidence, source)) is not None:
                note(*place)
    for log in evidence.logs:
        if log.name in evidence_module.LOGS:
            for number, line in enumerate(log.lines, log.first):
                if _quoted(line, result.message):
                    note(log, number)
    return list(found.values())[:MOST_TELLING]


def _quoted(line: str, message: str) -> bool:
    """Whether a test's message quotes a log line, or the line's text behind its time."""
    text = line.rpartition("] ")[2].strip() if line.startswith("[") else line.strip()
    text = text.split("\t")[-1] if "\t" in text else text
    return len(text) >= 16 and text in message


def _line_of(evidence: Evidence, source: FactSource) -> tuple[Log, int] | None:
    """The line that a fact was read from, if the site shows it."""
    log = evidence.log_of_file(source.file)
    word, _, number = source.at.partition(" ")
    if log is None or word != "line" or not number.isdigit():
        return None
    at = int(number)
    return (log, at) if log.first <= at < log.first + len(log.lines) else None


def _sources(line: Timeline) -> list[Source]:
    used = {entry.source for entry in line.entries}
    return [source for source in Source if source in used]


def _tail(log: Log) -> list[tuple[int, str]]:
    numbered = list(enumerate(log.lines, log.first))
    return numbered[-TAIL_LINES:]


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height: PNG (third edition), 11.2.1, the first chunk is IHDR."""
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return (width, height)


def _short(night: str) -> str:
    """A night's name in a narrow column: the day of a date."""
    return night[8:10] if len(night) >= 10 and night[4] == night[7] == "-" else night[-4:]


def _number(value: float) -> str:
    return f"{value:.4g}"
