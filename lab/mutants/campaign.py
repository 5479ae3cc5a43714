"""Running the suite against one mutant after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lab.core.errors import LabBroken
from lab.mutants.catalogue import Mutant
from lab.mutants.outcome import (
    Fate,
    MutantOutcome,
    MutantsDocument,
    lab_trouble,
    reusable,
    write_document,
)
from lab.suite.catalogue import Entry

Attempt = Callable[[Mutant, Sequence[str]], MutantOutcome]
"""Runs the suite against a mutant, its tests in the order of these node ids."""

Say = Callable[[str], None]

PRIOR_KILLS = 0.5
"""What a test counts that has killed nothing yet, beside one kill for each that it has."""


def soonest_first(tests: Iterable[Entry], outcomes: Iterable[MutantOutcome] = ()) -> list[str]:
    """Node ids in the order in which they find a defect soonest, knowing nothing of it.

    The expected time until one finds it is least when tests come by their chance of finding it
    over their time. The chance is taken to follow what they have found in other mutants: with
    nothing known, the quickest come first. Equals stay in the suite's order.

    Args:
        tests: the suite's.
        outcomes: of other mutants.
    """
    kills = Counter(one.killed_by for one in outcomes if one.fate is Fate.KILLED)

    def worth(test: Entry) -> float:
        return (kills[test.id] + PRIOR_KILLS) / max(test.expected_seconds, 1.0)

    return [test.id for test in sorted(tests, key=worth, reverse=True)]


def run_campaign(
    mutants: Sequence[Mutant],
    tests: Sequence[Entry],
    attempt: Attempt,
    document: MutantsDocument,
    file: Path,
    *,
    earlier: MutantsDocument | None = None,
    packages: Sequence[tuple[str, str]] = (),
    say: Say,
    clock: Callable[[], float],
) -> MutantsDocument:
    """Run the suite against each mutant; what is known is written after each of them.

    Args:
        mutants: which ones, in order.
        tests: the suite's.
        attempt: runs the suite against one.
        document: the campaign's, with no mutants yet.
        file: where the document goes.
        earlier: document of a campaign that this one goes on with.
        packages: name and SHA-256 of each mutant's package, for ``earlier``.
        say: told in lines what happens.
        clock: a clock that only goes forward, in s.

    Returns:
        The document with every mutant.

    Raises:
        UsageError: the suite or the results folder cannot be used.
    """
    known = reusable(earlier, document, packages)
    for number, mutant in enumerate(mutants, 1):
        at = f"[{number}/{len(mutants)}] {mutant.name}"
        outcome = known.get(mutant.name)
        if outcome is None:
            say(f"{at}: {mutant.title}")
            began = clock()
            try:
                outcome = attempt(mutant, soonest_first(tests, document.mutants))
            except LabBroken as error:
                outcome = lab_trouble(mutant, error, seconds=clock() - began)
            say(f"{at}: {words(outcome)}")
        else:
            say(f"{at}: known: {words(outcome)}")
        document = document.with_outcomes([outcome])
        # What is known of those still to come, or not asked for, must outlive a kill.
        names = {one.name for one in document.mutants}
        rest = [one for name, one in known.items() if name not in names]
        write_document(document.with_outcomes(rest), file)
    return document


def words(outcome: MutantOutcome) -> str:
    """One outcome as a line."""
    test = f" by {outcome.killed_by.partition('::')[2]}" if outcome.killed_by else ""
    return f"{outcome.fate.value}{test} after {outcome.seconds:.0f} s" + (
        f": {outcome.message}" if outcome.message else ""
    )
