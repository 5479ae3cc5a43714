"""The store of results: what all runs say, in a database that can be asked.

Run folders stay the source of truth: the store is filled from them, as often as one likes, and
what it says of runs could be made anew. Only nightly plans live in the store alone.

Opening (``engine``)::

    with open_store() as store: ...              # PVLAB_DB, else results.db in the results folder
    open_store("postgresql://user@host/name")    # or a path, or sqlite:///FILE

``Store`` holds connections, not a session: it may be shared by threads; a child process opens
its own. Everything else is functions that take the store first, each one transaction, and give
frozen dataclasses. Moments are aware and in UTC, durations in seconds, runs are meant by name
(``run_id`` in the record), tests by pytest's node id, drivers by SHA-256 identity.

Filling (``importing``, ``documents``)::

    import_results(store, [results_dir()])       # list[Imported]; each tells what became of it;
                                                 # also mutants.json and */gate.json in it
    import_run(store, folder)                    # one; .became is NEW, REPLACED, UNCHANGED, ...
    put_gate(store, key, document, status=..., runs={run: role}, created=...)
    put_mutants(store, document)                 # of pvlab mutants

Nightly plans (``nightly``)::

    create_plan(store, key, [NewItem(key, payload, place, expected_seconds), ...])
    claim = claim(store, plan, worker)           # or item=KEY, places={...}; None: nothing left
    note_run(store, claim, run)                  # before the run starts: what a kill would leave;
                                                 # or claim(..., run=...), in one transaction
    lost(store, claim, message)                  # its worker is gone: pending again, and counted
    heartbeat(store, claim)
    finish(store, claim, run, folder=...)        # done; the folder is imported in the same commit
    lab_failed(store, claim, message)            # pending again, or lab-failed: see .state
    release(store, claim)                        # given back, nothing counted
    reap(store, plan, workers={...})             # after a kill: what those had is pending again
    claim_of(item)                               # take over a dead worker's claim, to finish() it
    close_plan(store, plan)
    plans, get_plan, items, attempts, item_history

A claim that was reaped raises ``ClaimLost`` when it is used, so that nothing counts twice.

Asking (``queries``)::

    nights(store, limit=100)                     # list[Night], .runs are names
    cells(store, night.runs)                     # list[Cell]: test, outcome, blame, seconds, ...
    history(store, test, limit=100)              # list[(RunRow, Cell)], the newest first
    failures(store, names)                       # list[Failure]: cell, evidence pieces, crashes
    runs, run, tests, drivers, buckets, crashes, gates, gate, mutants

Removing (``pruning``)::

    prune(store, results, keep=100, younger_than=timedelta(days=30), dry_run=True)
"""

from lab.results.store.answers import (
    BucketRow,
    CampaignRow,
    Cell,
    CrashRow,
    DriverRow,
    Failure,
    GateRow,
    MutantsRow,
    Night,
    Piece,
    RunDetail,
    RunRow,
    TestRow,
)
from lab.results.store.documents import forget_gate, put_gate, put_mutants
from lab.results.store.engine import Store, open_store, store_url
from lab.results.store.importing import Imported, import_results, import_run
from lab.results.store.models import AttemptEnd, ItemState
from lab.results.store.nightly import (
    Attempt,
    Claim,
    ClaimLost,
    Item,
    ItemHistory,
    NewItem,
    Plan,
    attempts,
    claim,
    claim_of,
    close_plan,
    create_plan,
    finish,
    get_plan,
    heartbeat,
    item_history,
    items,
    lab_failed,
    lost,
    note_run,
    plans,
    reap,
    release,
)
from lab.results.store.pruning import Pruned, prune
from lab.results.store.queries import (
    buckets,
    cells,
    crashes,
    drivers,
    failures,
    gate,
    gates,
    history,
    mutants,
    nights,
    run,
    runs,
    tests,
)
from lab.results.store.rows import Became

__all__ = [
    "Attempt",
    "AttemptEnd",
    "Became",
    "BucketRow",
    "CampaignRow",
    "Cell",
    "Claim",
    "ClaimLost",
    "CrashRow",
    "DriverRow",
    "Failure",
    "GateRow",
    "Imported",
    "Item",
    "ItemHistory",
    "ItemState",
    "MutantsRow",
    "NewItem",
    "Night",
    "Piece",
    "Plan",
    "Pruned",
    "RunDetail",
    "RunRow",
    "Store",
    "TestRow",
    "attempts",
    "buckets",
    "cells",
    "claim",
    "claim_of",
    "close_plan",
    "crashes",
    "create_plan",
    "drivers",
    "failures",
    "finish",
    "forget_gate",
    "gate",
    "gates",
    "get_plan",
    "heartbeat",
    "history",
    "import_results",
    "import_run",
    "item_history",
    "items",
    "lab_failed",
    "lost",
    "mutants",
    "nights",
    "note_run",
    "open_store",
    "plans",
    "prune",
    "put_gate",
    "put_mutants",
    "reap",
    "release",
    "run",
    "runs",
    "store_url",
    "tests",
]
