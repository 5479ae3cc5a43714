"""Turns: a session that runs tests on two drivers by turns, or some of them several times.

A plan, made by whoever compares drivers, says which test runs on which driver, and in which
order. Each run of a test is an item of its own, with the turn in its name:
``test_x[new1]``, ``test_x[baseline1]``, ``test_y[a-new2]``. Fixtures make a clone for each, as
for any other test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.core.atomic import atomic_write
from lab.core.errors import UsageError
from lab.plugin.keys import TURN, uses_lab
from lab.plugin.options import settings

if TYPE_CHECKING:
    from lab.results.record import Turn


def turned_id(turn: Turn) -> str:
    """The node id of a turn's item."""
    test, mark = turn.test, _mark(turn)
    return f"{test[:-1]}-{mark}]" if test.endswith("]") else f"{test}[{mark}]"


def base_id(item: pytest.Item) -> str:
    """A test's node id, whatever its turn is."""
    turn = item.stash.get(TURN, None)
    return turn.test if turn is not None else item.nodeid


def on_baseline(item: pytest.Item) -> bool:
    """Whether an item, or an attempt of it, runs on the baseline."""
    for node in item.listchain():
        turn = node.stash.get(TURN, None)
        if turn is not None:
            return turn.driver == "baseline"
    return False


def write_plan(turns: Sequence[Turn], file: Path) -> None:
    """Write a plan for ``--pvlab-plan``.

    Raises:
        OSError: it cannot be written.
    """
    from pydantic import TypeAdapter

    from lab.results.record import Turn

    data = TypeAdapter(tuple[Turn, ...]).dump_json(tuple(turns), indent=2)
    atomic_write(file, data + b"\n")


def read_plan(config: pytest.Config) -> tuple[Turn, ...]:
    """The turns of a session, in order; none without a plan.

    Raises:
        UsageError: the plan cannot be read, or names a turn twice.
    """
    file = settings(config).plan
    if file is None:
        return ()
    from pydantic import TypeAdapter, ValidationError

    from lab.results.record import Turn

    try:
        found = TypeAdapter(tuple[Turn, ...]).validate_json(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"{file}: no plan: {where}: {problem['msg']}") from None
    ids = [turned_id(turn) for turn in found]
    if not found or len(set(ids)) < len(ids):
        raise UsageError(f"{file}: no plan: {'a turn is there twice' if found else 'no turn'}")
    if settings(config).baseline is None and any(turn.driver == "baseline" for turn in found):
        raise UsageError(f"{file}: a turn is on the baseline, and there is none")
    return found


def by_id(turns: Sequence[Turn]) -> Mapping[str, Turn]:
    """Turns by the node id of their items."""
    return {turned_id(turn): turn for turn in turns}


def arrange_turns(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the turns of the session's plan in the place of the collected tests, if it has one.

    Args:
        config: of the session.
        items: the collected tests; changed in place.

    Raises:
        UsageError: the plan is unusable, or names a test that was not collected.
    """
    turns = read_plan(config)
    if not turns:
        return
    collected = {item.nodeid: item for item in items if uses_lab(item)}
    made = []
    for turn in turns:
        item = collected.get(turn.test)
        if not isinstance(item, pytest.Function):
            raise UsageError(f"the plan names a test that is not there: {turn.test}")
        made.append(_take_turn(item, turn))
    config.hook.pytest_deselected(items=[i for i in items if i.nodeid not in _tests(turns)])
    items[:] = made


def _tests(turns: Sequence[Turn]) -> frozenset[str]:
    return frozenset(turn.test for turn in turns)


def _take_turn(item: pytest.Function, turn: Turn) -> pytest.Function:
    """The same test once more, with its turn in its name, as if it were a parameter."""
    assert item.parent is not None  # noqa: S101 - only a session has none
    callspec = getattr(item, "callspec", None)
    own: dict[str, Any] = {}
    if callspec is not None:
        # pytest 9 makes the node id of these, pytest 8 of the name.
        ids = [*callspec._idlist, _mark(turn)]
        own = {"callspec": replace(callspec, _idlist=ids), "originalname": item.originalname}
    made: pytest.Function = type(item).from_parent(
        item.parent,
        name=turned_id(turn)[len(item.nodeid) - len(item.name) :],
        callobj=item.obj,
        fixtureinfo=item._fixtureinfo,
        **own,
    )
    made.own_markers = list(item.own_markers)
    made.keywords.update(item.keywords)
    made.extra_keyword_matches = set(item.extra_keyword_matches)
    made.stash[TURN] = turn
    return made


def _mark(turn: Turn) -> str:
    return f"{turn.driver}{turn.repeat}"
