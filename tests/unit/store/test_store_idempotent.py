"""However often and in which order folders are imported, the store says what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from sqlalchemy.orm import Session
from store_samples import BAD, GOOD, OOPS, PANIC, contents, folder_of, record, running, write

from lab.core.errors import Blame
from lab.results.record import Outcome, RunRecord, TestRecord
from lab.results.store import Store, import_results, import_run, runs
from lab.results.store.models import Base

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
IDS = st.sampled_from(["t.py::a", "t.py::b", "t.py::c[\0]"])


@st.composite
def some_test(draw: st.DrawFn) -> TestRecord:
    test_id = draw(IDS)
    outcome = draw(st.sampled_from(Outcome))
    bad = outcome.bad
    return TestRecord(
        id=test_id,
        area=draw(TEXT),
        outcome=outcome,
        blame=draw(st.sampled_from(Blame)) if bad else None,
        seconds=draw(st.floats(0, 1e6)),
        message=draw(TEXT),
        evidence=draw(st.sampled_from([None, folder_of(test_id)])),
        expected_seconds=draw(st.none() | st.floats(0, 1e6)),
        properties=draw(
            st.sampled_from([{"pvlab.crash": PANIC}, {}])
            if bad
            else st.dictionaries(TEXT, TEXT, max_size=2)
        ),
    )


@st.composite
def stages(draw: st.DrawFn, number: int) -> list[RunRecord]:
    """States of a run, the last one ended or not."""
    tests = draw(st.lists(some_test(), max_size=3, unique_by=lambda test: test.id))
    more = {
        "images": {"dom0": {"key": draw(st.sampled_from("kl"))}},
        "driver": draw(
            st.none()
            | st.sampled_from([GOOD, BAD]).map(
                lambda sha256: {
                    "name": sha256[0],
                    "version": "1",
                    "sha256": sha256,
                    "basename": "x",
                }
            )
        ),
    }
    found = [
        running(number, *tests[:count], **more, **_none(count)) for count in range(len(tests) + 1)
    ]
    if draw(st.booleans()):
        found.append(record(number, *tests, **more, **_none(len(tests))))
    return found


def _none(count: int) -> dict[str, object]:
    return {} if count else {"tests": ()}


@st.composite
def stories(draw: st.DrawFn) -> list[RunRecord | None]:
    """Runs that are written, and imports (None) between them."""
    queues = [draw(stages(number)) for number in range(draw(st.integers(1, 3)))]
    story: list[RunRecord | None] = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        story.append(queue.pop(0))
        story += [None] * draw(st.integers(0, 2))
    return story


@given(stories())
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_store_says_what_folders_say(
    store: Store, results: Path, story: list[RunRecord | None]
) -> None:
    _empty(store, results)
    for run in story:
        if run is not None:
            write(results, run, {test.id: OOPS for test in run.tests if test.outcome.bad})
        else:
            import_results(store, [results])
    import_results(store, [results])
    said = contents(store)
    with store.write() as session:
        _delete_all(session)
    # The other way round, since nothing may depend on the order.
    for folder in sorted(results.iterdir(), reverse=True):
        import_run(store, folder)
    assert contents(store) == said
    assert len(runs(store)) == len(list(results.iterdir()))


def _empty(store: Store, results: Path) -> None:
    shutil.rmtree(results)
    results.mkdir()
    with store.write() as session:
        _delete_all(session)


def _delete_all(session: Session) -> None:
    for table in reversed(Base.metadata.sorted_tables):
        session.execute(delete(table))
