"""From a crash report to a scenario that shows the crash again.

What a report holds is read (``read_report``), candidates are made from it in the order in which
they are likely (``candidates``), each is run from the warm state, and what it shows is compared
with the report by signature (``Wanted``). What was found is run again for its rate.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.core import errand
from lab.core.errors import Blame, LabBroken, UsageError
from lab.crash import labrun, reader
from lab.crash.facts import CrashFact
from lab.crash.incidents import incidents, silent
from lab.crash.signature import Signature, similarity
from lab.crash.signature import signature as signature_of
from lab.crash.text import decode, is_text
from lab.drivers import archive
from lab.drivers.package import KEPT
from lab.scenario.bundle import SCENARIO, Loaded, is_bundle, is_scenario, is_zip, load_any
from lab.scenario.generate import generate
from lab.scenario.minimise import Seen
from lab.scenario.model import Scenario
from lab.scenario.outcome import End, Outcome
from lab.scenario.rate import Rate, rate
from lab.scenario.triggers import SIGN, Suspicion, suspect
from lab.scenario.workers import InOrder, one_by_one
from lab.suite.sequential import CONFIDENCE, Tally

SAME = 0.8
"""Similarity from which two crashes count as the same."""

CONFIRM = 10
"""Runs that say how often a scenario shows what it showed once."""

CONFIRM_LEAST = 3
"""Of these, runs that are made though they take more than their share of the budget."""

CONFIRM_SHARE = 1 / 3
"""Share of the budget's rest for these runs, when what was found is cut down after them."""

LAB_FAILURES = 3
"""Attempts in a row that the lab may fail in."""

MAX_TEXT = 1 << 20
"""Most bytes of prose that are looked through for what people did."""

# A run of a thousand tests has some 4000 folders.
_MAX_FOLDERS = 10_000
_MAX_FILES = 200
_PROSE = frozenset({".txt", ".md", ".eml", ".mbox", ".log", ".htm", ".html", ""})

Attempt = Callable[[Scenario], Outcome]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What a report holds.

    Attributes:
        source: the path that it was read from.
        facts: of crashes, one for each.
        recorded: scenarios that were recorded when it happened, or written by hand.
        suspicions: what else is likely, with the signs.
        driver: folder of a driver package that came with it: a bundle's, or the one that the
            run was about.
    """

    source: str
    facts: tuple[CrashFact, ...]
    recorded: tuple[Loaded, ...]
    suspicions: tuple[Suspicion, ...]
    driver: Path | None = None

    @property
    def words(self) -> list[str]:
        """What was found in it, in lines for people."""
        # A log in which nothing crashed is no crash beside one.
        telling = [fact for fact in self.facts if not silent(fact)] or self.facts
        lines = [f"crash: {signature_of(fact).text()}" for fact in telling]
        lines += [f"scenario: {one.source}" for one in self.recorded]
        lines += [
            f"likely: {one.trigger.name} ({', '.join(one.signs)})"
            for one in self.suspicions
            if one.signs
        ]
        return lines


def read_report(path: Path, scratch: Path) -> Report:
    """Read whatever a user has.

    Args:
        path: a dump, a log, a mail, a folder or zip archive of such, a folder of this lab's
            results, a scenario or a bundle.
        scratch: an existing folder for what archives hold.

    Raises:
        UsageError: it cannot be read, or nothing in it says what to reproduce.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    source, path = path, _unpacked(path, scratch)
    recorded = _recorded(path, scratch)
    facts = tuple(fact for one in recorded for fact in one.facts)
    refused: UsageError | None = None
    if not facts and not (path.is_file() and (is_scenario(path) or is_bundle(path))):
        try:
            facts = tuple(incidents(reader.read(path)))
        except UsageError as error:
            refused = error
    text = _prose(path)
    suspicions = tuple(suspect(text, facts))
    if not (facts or recorded or any(one.signs for one in suspicions)):
        assert refused is not None  # noqa: S101 - a scenario is recorded, all else is read
        raise UsageError(
            f"{source}: nothing in it says what to reproduce: {refused.message}", hint=refused.hint
        )
    brought = next((one.driver for one in recorded if one.driver is not None), None)
    return Report(str(source), facts, recorded, suspicions, brought or _tested(path))


def _unpacked(path: Path, scratch: Path) -> Path:
    """The folder that an archive of reports holds; any other path as it is."""
    if not path.is_file() or not is_zip(path) or is_bundle(path):
        return path
    into = Path(tempfile.mkdtemp(dir=scratch))
    archive.take_in(path, into, archive.REPORT)
    return into


def _tested(path: Path) -> Path | None:
    """The package that a run kept; the folder is the run's, of one test in it, or around it."""
    if not path.is_dir():
        return None
    around = [labrun.run_of(path)] if (path / labrun.MANIFEST).is_file() else []
    for folder in itertools.chain(around, _folders(path)):
        if (folder / labrun.RECORD).is_file() and (folder / KEPT).is_dir():
            return folder / KEPT
    return None


def _recorded(path: Path, scratch: Path) -> tuple[Loaded, ...]:
    """Called by where they are in the report: what is made of them travels to other machines."""
    if path.is_file():
        if not (is_scenario(path) or is_bundle(path)):
            return ()
        return (replace(load_any(path, scratch), source=path.name),)
    found = [
        replace(load_any(folder, scratch), source=str((folder / SCENARIO).relative_to(path)))
        for folder in _folders(path)
        if (folder / SCENARIO).is_file()
    ]
    # Of a run's tests those that passed show nothing.
    failed = [one for one in found if one.scenario.about.outcome not in ("", End.PASSED.value)]
    return tuple(failed or found)


def _folders(path: Path) -> Iterator[Path]:
    """It and all below it, in the same order each time, but for kept driver packages."""
    for count, (folder, inside, files) in enumerate(os.walk(path)):
        if count >= _MAX_FOLDERS:
            return
        inside.sort()
        if KEPT in inside and not {labrun.RECORD, SCENARIO}.isdisjoint(files):
            inside.remove(KEPT)
        yield Path(folder)


def _prose(path: Path) -> str:
    """What people wrote, as far as it is text; the readers see to the rest."""
    if path.is_file() and is_bundle(path):
        return ""
    files = [path]
    if path.is_dir():
        files = [one for folder in _folders(path) for one in sorted(folder.iterdir())]
    left = MAX_TEXT
    parts: list[str] = []
    for one in files[:_MAX_FILES]:
        if one.suffix.lower() not in _PROSE or one.is_symlink() or not one.is_file():
            continue
        try:
            with one.open("rb") as file:
                data = file.read(left)
        except OSError:
            continue
        if is_text(data[:4096]):
            parts.append(decode(data))
            left -= len(data)
        if left <= 0:
            break
    return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The failure to be shown again.

    Attributes:
        signatures: of its crash; any of them will do.
        ends: how a run has to end where there is no signature; empty for any failure of the
            driver.
        step: word of the step that has to fail where there is no signature; empty for any.
    """

    signatures: tuple[Signature, ...] = ()
    ends: frozenset[End] = frozenset()
    step: str = ""

    @classmethod
    def of_report(cls, report: Report) -> Wanted:
        """What a report tells of."""
        telling = [fact for fact in report.facts if _telling(fact)]
        signatures = tuple(dict.fromkeys(signature_of(fact) for fact in telling))
        if signatures:
            return cls(signatures)
        kinds = {fact.kind for fact in report.facts}
        # A person's "it crashes" or "it hangs" is all there is.
        if kinds == {"hang"}:
            return cls(ends=frozenset({End.HANG, End.FAILED}))
        if kinds and kinds <= {"bugcheck", "oops", "panic", "assert", "xen"}:
            return cls(ends=frozenset({End.CRASH}))
        return cls()

    @classmethod
    def of_outcome(cls, outcome: Outcome) -> Wanted:
        """What a run has shown."""
        # A guest that crashed may stop again on its way up: that says nothing.
        if telling := [fact for fact in outcome.facts if _telling(fact)]:
            return cls(tuple(dict.fromkeys(map(signature_of, telling))))
        return cls(ends=frozenset({outcome.end}), step=_verb(outcome))

    @property
    def words(self) -> str:
        """In a line."""
        if self.signatures:
            return "; or ".join(one.text() for one in self.signatures)
        if self.ends:
            return " or ".join(sorted(end.value for end in self.ends))
        return "any failure of the driver"

    def compare(self, outcome: Outcome) -> Match:
        """What a run has shown of it: nothing, unless the driver is to blame."""
        if outcome.blame is not Blame.DRIVER:
            return Match(Seen.NOTHING)
        if not self.signatures:
            end_fits = not self.ends or outcome.end in self.ends
            same = end_fits and (not self.step or self.step == _verb(outcome))
            return Match(Seen.SAME if same else Seen.OTHER, float(same), (outcome.end.value,))
        best = Match(Seen.OTHER, 0.0, (f"it ended otherwise: {outcome.end.value}",))
        for fact in outcome.facts:
            for one in self.signatures:
                score, reasons = similarity(one, signature_of(fact))
                if score > best.score:
                    best = Match(Seen.SAME if score >= SAME else Seen.OTHER, score, reasons)
        return best


def _telling(fact: CrashFact) -> bool:
    """Whether a fact can be recognised: a person's word that it crashed cannot."""
    named = fact.module is not None and fact.kind != "unknown"
    return fact.code is not None or bool(fact.frames) or named or fact.stuck is not None


def _verb(outcome: Outcome) -> str:
    """The word of the step that a run ended at."""
    return outcome.at.partition(", ")[2].split(" ")[0]


@dataclass(frozen=True, slots=True)
class Match:
    """How near a run came.

    Attributes:
        seen: in a word.
        score: similarity, 0 to 1.
        reasons: for it, the weightiest first.
    """

    seen: Seen
    score: float = 0.0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scenario to try.

    Attributes:
        name: where it comes from, in words.
        scenario: it.
    """

    name: str
    scenario: Scenario


def candidates(report: Report) -> Iterator[Candidate]:
    """What to try, without end: the recorded scenarios, what is suspected, then chance.

    In each round the recorded ones come first, the first two times as they were and then with
    seeds of their own; then the triggers that the report points at, each time with other
    numbers, or the likeliest ones when it points at none; then scenarios made by chance, more
    of them in each round.
    """
    signed = [one for one in report.suspicions if one.score >= SIGN]
    likely = signed or list(report.suspicions[:4])
    for turn in itertools.count(1):
        for one in report.recorded:
            scenario = one.scenario if turn <= 2 else one.scenario.with_seed(turn)
            yield Candidate(f"recorded: {one.source}", scenario)
        for suspicion in likely:
            # The first one is what most reports are about: it is tried more often.
            for part in range(2 if suspicion is likely[0] else 1):
                seed = turn * 10 + part
                trigger = suspicion.trigger
                steps = trigger.build(random.Random(f"{trigger.name} {seed}"))  # noqa: S311
                yield Candidate(f"trigger: {trigger.name}", Scenario(seed=seed, steps=steps))
        for number in range(min(turn, 10)):
            seed = turn * 1000 + number
            yield Candidate(f"chance: seed {seed}", generate(report.suspicions, seed))


@dataclass(frozen=True, slots=True)
class Different:
    """A failure that is not the wanted one.

    Attributes:
        candidate: what showed it.
        outcome: what it was.
        match: how near it is.
    """

    candidate: Candidate
    outcome: Outcome
    match: Match


@dataclass
class Search:
    """What came of looking for a failure.

    Attributes:
        wanted: what was looked for.
        found: the candidate that showed it; None when none did.
        outcome: of the run that showed it.
        match: how near that is.
        tally: runs of the found one after the first.
        attempts: runs that were looked at until it was found, or all of them.
        different: other failures of the driver, the nearest first.
    """

    wanted: Wanted
    found: Candidate | None = None
    outcome: Outcome | None = None
    match: Match | None = None
    tally: Tally = field(default_factory=Tally)
    attempts: int = 0
    different: list[Different] = field(default_factory=list)

    def rate(self, confidence: float = CONFIDENCE) -> Rate:
        """How often: of the found scenario in its further runs, else of all attempts."""
        return rate(self.tally if self.found else Tally(0, self.attempts), confidence)

    @property
    def baseline(self) -> Tally:
        """Runs of the found scenario for its minimisation: with the first, if no other hit."""
        return self.tally if self.tally.failures else self.tally.plus(True)

    @property
    def words(self) -> str:
        """In a line."""
        if self.found is None:
            others = len(self.different)
            crash = "1 different failure" if others == 1 else f"{others} different failures"
            more = f"; {crash} of the driver" if others else ""
            return f"not reproduced: {self.rate().words}{more}"
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        again = f", then in {self.rate().words}" if self.tally.attempts else ""
        return f"reproduced after {tries}{again}"


class Bench:
    """Runs attempts, and tells those apart that the lab failed in.

    Args:
        attempt: runs a scenario once.
        say: told in lines what happens.
        in_order: how attempts follow each other; several may be under way.
    """

    def __init__(
        self,
        attempt: Attempt,
        say: Say = lambda _: None,
        in_order: InOrder = one_by_one,
    ) -> None:
        self._attempt = attempt
        self._say = say
        self._in_order = in_order

    def run(self, scenario: Scenario) -> Outcome:
        """An outcome that says something of the driver; may be asked for in several threads.

        An attempt that the lab failed in is made again in its place, so failures in a row are
        those of one scenario, whatever else is under way.

        Raises:
            LabBroken: the lab failed ``LAB_FAILURES`` times in a row.
        """
        for _ in range(LAB_FAILURES):
            outcome = self._attempt(scenario)
            # Of an attempt that was ended, the machine was killed.
            errand.check()
            if outcome.end is not End.LAB:
                return outcome
            self._say(f"the lab failed: {outcome.reason}")
        raise LabBroken(f"the lab failed {LAB_FAILURES} times in a row: {outcome.reason}")

    def outcomes(self, scenarios: Iterable[Scenario]) -> Generator[Outcome, None, None]:
        """An outcome of each scenario, in their order; see ``InOrder``.

        Raises:
            LabBroken: as ``run``, in its turn.
        """
        return self._in_order(self.run, scenarios)

    def trial(
        self, wanted: Wanted, keep: Callable[[Scenario, Outcome], object] = lambda *_: None
    ) -> Callable[[Scenario], Seen]:
        """For ``minimise``: what a run shows of a failure.

        Args:
            wanted: the failure.
            keep: told of each run that shows it, in the thread that made the run.
        """

        def trial(scenario: Scenario) -> Seen:
            outcome = self.run(scenario)
            seen = wanted.compare(outcome).seen
            if seen is Seen.SAME:
                keep(scenario, outcome)
            return seen

        return trial


def search(
    report: Report,
    bench: Bench,
    *,
    left: Callable[[], bool],
    say: Say = lambda _: None,
    confirm: int = CONFIRM,
    share: Callable[[float], Callable[[], bool]] | None = None,
) -> Search:
    """Run candidates until one shows what the report tells of, then run that one again.

    Args:
        report: what to reproduce.
        bench: runs them.
        left: whether there is time for another run; at least one is made.
        say: told in lines what happens.
        confirm: how often to run what was found again.
        share: called with a share of the time that is left, when that begins, and says from
            then on whether there is time for more than ``CONFIRM_LEAST`` of these runs; as
            ``left`` when None.

    Raises:
        LabBroken: the lab failed again and again.
    """
    result = Search(Wanted.of_report(report))
    begun: deque[Candidate] = deque()

    def scenarios() -> Iterator[Scenario]:
        for number, candidate in enumerate(candidates(report)):
            if number and not left():
                return
            begun.append(candidate)
            yield candidate.scenario

    with closing(bench.outcomes(scenarios())) as outcomes:
        for outcome in outcomes:
            candidate = begun.popleft()
            result.attempts += 1
            match = result.wanted.compare(outcome)
            say(f"[{result.attempts}] {candidate.name}: {outcome.line}")
            if match.seen is Seen.SAME:
                result.found, result.outcome, result.match = candidate, outcome, match
                break
            if match.seen is Seen.OTHER:
                result.different.append(Different(candidate, outcome, match))
    result.different.sort(key=lambda one: -one.match.score)
    if result.found is None or result.outcome is None:
        return result
    shown = Wanted.of_outcome(result.outcome)
    more = left if share is None else share(CONFIRM_SHARE)
    scenario = result.found.scenario

    def again() -> Iterator[Scenario]:
        for made in range(confirm):
            if not left() or (made >= CONFIRM_LEAST and not more()):
                return
            yield scenario

    with closing(bench.outcomes(again())) as outcomes:
        for number, outcome in enumerate(outcomes, 1):
            same = shown.compare(outcome).seen is Seen.SAME
            result.tally = result.tally.plus(same)
            say(f"again {number} of {confirm}: {outcome.line}")
    return result
