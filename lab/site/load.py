"""From the results store to what the pages are made of."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.core.errors import UsageError
from lab.crash import facts as facts_module
from lab.gate.observation import FIGURE
from lab.results import store as kept
from lab.results.record import Outcome
from lab.results.store import Store
from lab.results.store.rows import machine
from lab.results.writer import load_run
from lab.site.model import (
    Attempts,
    Bucket,
    Build,
    Finding,
    Gate,
    Key,
    Mutant,
    Mutants,
    Night,
    Point,
    Result,
    Run,
    Site,
    Trend,
    mark,
)

NIGHTS = 100
"""Nights that a site shows, the last ones."""

OTHERS = 50
"""Runs beside the nights that it shows, the last ones."""

CONFIDENCE = 0.95
"""Of a median's interval."""


def load(
    store: Store,
    results: Path,
    *,
    nights: int = NIGHTS,
    progress: Callable[[str], None] = lambda line: None,
) -> Site:
    """Everything that a site shows.

    With nightly plans in the store a night is a plan, and runs that belong to none are shown
    for themselves; without, a night is what ran on a day.

    Args:
        store: where.
        results: the results folder, for people and for links.
        nights: how many at most, the last ones.
        progress: told what is done, in words.

    Raises:
        LabBroken: the store cannot be used.
    """
    found = kept.nights(store, limit=nights, days=False)
    planned = bool(found)
    if not planned:
        found = kept.nights(store, limit=nights)
    found.reverse()
    places = {
        name: place
        for night in found
        if night.planned
        for name, place in _places(store, night.key).items()
    }
    of_nights = [name for night in found for name in night.runs]
    documents = kept.gates(store)
    beside = [row.name for row in kept.runs(store, limit=OTHERS)] if planned else []
    beside += [run for gate in documents for run in gate.runs]
    others = [name for name in dict.fromkeys(beside) if name not in set(of_nights)]
    progress(f"{len(found)} nights, {len(of_nights)} runs in them, {len(others)} others")
    cells = kept.cells(store, (*of_nights, *others))
    runs = _runs(store, (*of_nights, *others), cells, places)
    return Site(
        nights=tuple(
            Night(night.key, tuple(runs[name] for name in night.runs if name in runs))
            for night in found
            if any(name in runs for name in night.runs)
        ),
        others=tuple(runs[name] for name in others if name in runs),
        buckets=tuple(_buckets(store)),
        gates=tuple(_gate(one) for one in documents),
        trends=_trends(found, runs, cells),
        mutants=next((_mutants(one.document) for one in kept.mutants(store)), None),
        results_folder=results,
    )


def _places(store: Store, plan: str) -> dict[str, str]:
    """Where the runs of a plan ran, by run: the matrix names driver builds by their role."""
    found = {}
    for item in kept.items(store, plan):
        order = item.payload.get("order", {})
        if item.run and isinstance(order, Mapping) and order.get("profile"):
            words = (str(order["profile"]), str(order.get("driver") or ""))
            found[item.run] = ", ".join(word for word in words if word)
    return found


def _runs(
    store: Store, names: Sequence[str], cells: Sequence[kept.Cell], places: Mapping[str, str]
) -> dict[str, Run]:
    buckets: dict[tuple[str, str], str] = {}
    for crash in kept.crashes(store):
        buckets.setdefault((crash.run, crash.test), crash.bucket)
    by_run: dict[str, list[kept.Cell]] = defaultdict(list)
    for cell in cells:
        by_run[cell.run].append(cell)
    made = {}
    for row in kept.runs(store, names=names):
        folder = Path(row.folder) if row.machine == machine() else None
        if folder is not None and not folder.is_dir():
            folder = None
        place = places.get(row.name) or ", ".join(
            word for word in (row.profile, row.driver.name if row.driver else "") if word
        )
        bad = any(cell.outcome.bad for cell in by_run[row.name])
        details, more = _from_record(folder) if folder is not None else ({}, {})
        made[row.name] = Run(
            id=row.name,
            started=row.started,
            seconds=row.seconds,
            ended_how=row.ended_how.value,
            profile=row.profile,
            guest=row.guest_label,
            accelerator=more.pop("accelerator", row.accelerator or ""),
            driver=Build(row.driver.name, row.driver.version, row.driver.sha256)
            if row.driver
            else None,
            status=row.status.value if row.status else "",
            reasons=row.reasons,
            intensity=row.intensity,
            command=row.command,
            folder=folder,
            results=tuple(
                _result(cell, place, folder, buckets, details if bad else {})
                for cell in by_run[row.name]
            ),
            **more,
        )
    return made


def _from_record(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """What only the run's own record has: details of failures, the host, the versions."""
    try:
        record = load_run(folder)
    except UsageError:
        # The store's word is enough for everything else.
        return {}, {}
    host = record.host
    words = f"{host.os}, {host.kernel}, {host.cpus} processors, {host.memory_mib} MiB"
    accelerator = record.accelerator
    more = {"host": words, "versions": record.versions}
    if accelerator is not None:
        more["accelerator"] = f"{accelerator.name}: {accelerator.why}"
    return {test.id: test.details for test in record.tests if test.outcome.bad}, more


def _result(
    cell: kept.Cell,
    place: str,
    folder: Path | None,
    buckets: Mapping[tuple[str, str], str],
    details: Mapping[str, str],
) -> Result:
    race = cell.campaign
    return Result(
        key=Key(cell.test, place),
        run=cell.run,
        mark=mark(cell.outcome, cell.blame),
        seconds=cell.seconds,
        area=cell.area,
        phase=cell.phase,
        message=cell.message,
        details=details.get(cell.test, ""),
        expected_seconds=cell.expected_seconds,
        evidence=folder / cell.evidence if folder is not None and cell.evidence else None,
        bucket=buckets.get((cell.run, cell.test), ""),
        attempts=Attempts(
            race.attempts, race.failures, race.failed_seeds, race.least, race.most, race.confidence
        )
        if race
        else None,
    )


def _buckets(store: Store) -> Iterator[Bucket]:
    builds = {row.sha256: row for row in kept.drivers(store)}
    for row in kept.buckets(store):
        try:
            sample = facts_module.from_json(row.sample.fact)
        except UsageError:
            sample = None
        yield Bucket(
            key=row.key,
            title=row.text,
            kind=sample.kind if sample else "unknown",
            count=row.count,
            first_seen=row.first_seen,
            last_seen=row.last_seen,
            builds={
                Build(builds[one].name, builds[one].version, one).words
                if one in builds
                else one: count
                for one, count in row.builds.items()
            },
            sample=sample,
        )


# -- documents of gates and mutants, as their JSON schemas describe them -------------------------


def _gate(row: kept.GateRow) -> Gate:
    document = row.document
    verdict = _mapping(document.get("verdict"))
    comparison = _mapping(document.get("comparison"))
    return Gate(
        id=row.key,
        when=row.created,
        driver=_driver(document.get("driver")) or (row.driver or "")[:12] or "no driver",
        baseline=_driver(comparison.get("baseline")) or (row.baseline or "")[:12],
        status=row.status.value,
        exit_code=int(verdict.get("exit_code", 3)),
        reasons=tuple(str(one) for one in verdict.get("reasons", ())),
        findings=tuple(_findings(document, comparison)),
        hashes=dict(_hashes(document, comparison)),
        guest=str(document.get("guest_label", "")),
        runs=tuple(row.runs),
    )


def _findings(document: Mapping[str, Any], comparison: Mapping[str, Any]) -> Iterator[Finding]:
    """Of a comparison its findings that are no sameness; of one run the tests that failed."""
    for one in map(_mapping, comparison.get("findings", ())):
        if one.get("kind") != "same":
            proofs = [_mapping(proof) for proof in one.get("proofs", ())]
            run = str(proofs[0].get("run_id", "")) if proofs else ""
            yield Finding(str(one.get("kind")), str(one.get("test")), str(one.get("reason")), run)
    if comparison:
        return
    run = str(document.get("run_id", ""))
    for one in map(_mapping, document.get("tests", ())):
        if one.get("outcome") in (Outcome.FAILED, Outcome.ERROR):
            kind = {"driver": "failure", "lab": "lab broken"}.get(str(one.get("blame")))
            yield Finding(kind or "undecided", str(one.get("id")), str(one.get("message")), run)
    for one in map(_mapping, document.get("errata", ())):
        yield Finding("known", str(one.get("test")), str(one.get("why")), run)


def _hashes(
    document: Mapping[str, Any], comparison: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    named = {
        "driver": _mapping(document.get("driver")).get("sha256"),
        "baseline": _mapping(comparison.get("baseline")).get("sha256"),
        "suite": document.get("suite_sha256"),
        "policy": comparison.get("policy_sha256"),
    }
    for name, image in sorted(_mapping(document.get("images")).items()):
        named[f"image {name}"] = _mapping(image).get("key")
    named["document"] = document.get("sha256")
    for name, digest in named.items():
        if digest:
            yield name, str(digest)


def _driver(value: Any) -> str:
    one = _mapping(value)
    return Build(*(str(one.get(name, "")) for name in ("name", "version", "sha256"))).words


def _mutants(document: Mapping[str, Any]) -> Mutants:
    return Mutants(
        guest=str(document.get("guest_label", "")),
        accelerator=str(document.get("accelerator", "")),
        intensity=str(document.get("intensity", "")),
        mutants=tuple(
            Mutant(
                name=str(one.get("name", "")),
                title=str(one.get("title", "")),
                fate=str(one.get("fate", "")),
                killed_by=str(one.get("killed_by") or ""),
                blamed=str(one.get("blamed") or ""),
                seconds=float(one.get("seconds", 0.0)),
                message=str(one.get("message", "")),
                run=str(one.get("run", "")),
            )
            for one in map(_mapping, document.get("mutants", ()))
        ),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# -- figures ----------------------------------------------------------------------------------


def _trends(
    nights: Iterable[kept.Night], runs: Mapping[str, Run], cells: Iterable[kept.Cell]
) -> tuple[Trend, ...]:
    """What tests measured, night by night, for each place."""
    night_of = {name: night.key for night in nights for name in night.runs}
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    places = {
        (run.id, result.key.test): result.key.place
        for run in runs.values()
        for result in run.results
    }
    for cell in cells:
        if cell.run not in night_of:
            continue
        for name, value in _figures(cell.properties):
            key = (name, places.get((cell.run, cell.test), ""))
            found[key][night_of[cell.run]].append(value)
    order = [night.key for night in nights]
    return tuple(
        Trend(
            name=f"{name} ({place})" if place else name,
            unit=name.rpartition(", ")[2] if name.endswith((", ms", ", s")) else "ratio",
            points=tuple(_point(night, by_night[night]) for night in order if night in by_night),
            note="Less is better.",
        )
        for (name, place), by_night in sorted(found.items())
    )


def _figures(properties: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    for name, text in properties.items():
        if not name.startswith(FIGURE):
            continue
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value):
            yield name.removeprefix(FIGURE), value


def _point(night: str, values: Sequence[float]) -> Point:
    low, high, words = interval(values)
    return Point(night, statistics.median(values), low, high, len(values), words)


def interval(values: Sequence[float]) -> tuple[float, float, str]:
    """An interval for the median: between two of the values, by their ranks.

    It holds for any distribution (David and Nagaraja, "Order Statistics", 3rd edition, 7.1).
    Below six values not even the extremes hold the median at 95 %, and it is said that they
    are no more than the extremes.

    Args:
        values: at least one.

    Returns:
        Lower end, upper end, and what they are.
    """
    ordered = sorted(values)
    count = len(ordered)
    # Probability that fewer than r values are below the median: binomial, one half.
    below = 0.0
    rank = 0
    for r in range(count // 2 + 1):
        below += math.comb(count, r) / 2**count
        if 2 * below > 1 - CONFIDENCE:
            break
        rank = r + 1
    if not rank:
        return ordered[0], ordered[-1], "least and most"
    return ordered[rank - 1], ordered[count - rank], "95 % interval of the median"
