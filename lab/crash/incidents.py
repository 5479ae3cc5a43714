"""Accounts that belong together: one crash seen in a dump, a log and a mail is one crash.

What a user sends, or a test leaves, is mostly several files about one crash. Accounts are put
together as long as they do not contradict each other, at most one of each kind of file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lab.crash.facts import KNOWLEDGE, CrashFact, Kind, known, plain_code
from lab.crash.signature import module_name

_TOGETHER = frozenset({"oops", "panic", "hang"})


def incidents(facts: Sequence[CrashFact]) -> list[CrashFact]:
    """Put accounts of the same crash together.

    Args:
        facts: out of one report: a file, a folder, an archive.

    Returns:
        One fact for each crash, in the order of their first accounts. Logs that tell of no
        crash join the only crash there is, the newest of them; with several crashes, or none,
        they stay for themselves.
    """
    groups: list[list[CrashFact]] = []
    quiet: list[CrashFact] = []
    for fact in facts:
        if silent(fact):
            quiet.append(fact)
            continue
        home = next((group for group in groups if _fits(fact, group)), None)
        if home is None:
            groups.append([fact])
        else:
            home.append(fact)
    if len(groups) == 1 and quiet:
        groups[0].append(quiet[-1])
        rest = quiet[:-1]
        # Earlier captures of the same log are not crashes beside a known one.
        files = {source.file for source in quiet[-1].sources.values()}
        quiet = [one for one in rest if not files & {s.file for s in one.sources.values()}]
    return [merged(group) for group in groups] + quiet


def merged(facts: Sequence[CrashFact]) -> CrashFact:
    """One fact out of several accounts; each field keeps the source it came from.

    Args:
        facts: at least one.
    """
    if len(facts) == 1:
        return facts[0]
    # A log that tells of no crash adds to one that does, and takes nothing's place.
    ordered = sorted(facts, key=lambda one: (not silent(one), *fullness(one)), reverse=True)
    fields: dict[str, Any] = {}
    sources = {}
    for name in KNOWLEDGE:
        for fact in ordered:
            if name in known(fact):
                fields[name] = getattr(fact, name)
                if name in fact.sources:
                    sources[name] = fact.sources[name]
                break
    kind: Kind = next((fact.kind for fact in ordered if fact.kind != "unknown"), "unknown")
    notes = tuple(dict.fromkeys(note for fact in ordered for note in fact.notes))
    return replace(CrashFact(kind), **fields, sources=sources, notes=notes)


def silent(fact: CrashFact) -> bool:
    """Whether an account tells of no crash: a log's last lines, and perhaps a complaint."""
    return fact.kind == "unknown" and fact.code is None and not fact.frames


def fullness(fact: CrashFact) -> tuple[int, int, int]:
    """How much a fact knows, for comparing: fields, frames, then lines and modules."""
    return len(known(fact)), len(fact.frames), len(fact.log) + len(fact.modules)


def _fits(fact: CrashFact, group: Sequence[CrashFact]) -> bool:
    readers = {source.reader for source in fact.sources.values()}
    return all(
        not readers & {source.reader for source in one.sources.values()} and _agree(fact, one)
        for one in group
    )


def _agree(a: CrashFact, b: CrashFact) -> bool:
    if a.kind != b.kind and not {a.kind, b.kind} <= _TOGETHER and "unknown" not in (
        a.kind, b.kind
    ):  # fmt: skip
        return False
    if a.code is not None and b.code is not None and plain_code(a.code) != plain_code(b.code):
        return False
    if a.parameters and b.parameters and a.parameters[:4] != b.parameters[:4]:
        shorter = min(len(a.parameters), len(b.parameters))
        if a.parameters[:shorter] != b.parameters[:shorter]:
            return False
    if a.module is not None and b.module is not None:
        first, second = module_name(a.module), module_name(b.module)
        # Who has no symbols blames the kernel.
        return first == second or "nt" in (first, second)
    return True
