"""What processes do to a store in tests: ``store_work.py import|claim PROCESSES DATABASE WHAT``.

They are forked from one, so that they begin at the same moment.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from lab.results.store import (
    Became,
    claim,
    finish,
    import_results,
    lab_failed,
    note_run,
    open_store,
)


def import_all(database: str, results: str, worker: str) -> None:
    with open_store(database) as store:
        for one in import_results(store, [Path(results)]):
            assert one.became is not Became.DAMAGED, one


def claim_all(database: str, plan: str, worker: str) -> None:
    """Run a plan: the lab fails on the first attempt at every third item."""
    with open_store(database) as store:
        while (got := claim(store, plan, worker)) is not None:
            run = f"{got.item.key}.{got.number}.{worker}"
            note_run(store, got, run)
            if got.number == 1 and got.item.position % 3 == 0:
                lab_failed(store, got, "QEMU died", run=run)
            else:
                finish(store, got, run)
            # In one piece: two processes write to this pipe.
            os.write(1, f"{got.item.key}\n".encode())


def at_once(count: int, work: Callable[[str], None]) -> int:
    """Run ``work`` in so many processes; 0 if all of them ended well."""
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(f"worker{number}")
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    return int(any([os.waitpid(child, 0)[1] for child in children]))


def main(what: str, processes: str, database: str, other: str) -> int:
    work = {"import": import_all, "claim": claim_all}[what]
    if processes == "1":
        work(database, other, "worker")
        return 0
    return at_once(int(processes), lambda worker: work(database, other, worker))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
