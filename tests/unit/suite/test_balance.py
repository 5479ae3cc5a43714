from __future__ import annotations

import random

import pytest

from lab.core.errors import UsageError
from lab.suite.balance import available_mib, check_memory, fitting, spread


def makespan(seconds, workers):
    """When the last worker ends, if each has the test it runs and one more, as with xdist."""
    queue = list(seconds)
    if len(queue) < 2 * workers:
        lanes = [queue[i::workers] for i in range(workers)]
        return max(sum(lane) for lane in lanes)
    lanes = [[queue.pop(0), queue.pop(0)] for _ in range(workers)]
    clock = [lane[0] for lane in lanes]
    waiting = [lane[1:] for lane in lanes]
    total = [sum(lane) for lane in lanes]
    while queue:
        free = min(range(workers), key=clock.__getitem__)
        taken = queue.pop(0)
        total[free] += taken
        waiting[free].append(taken)
        clock[free] += waiting[free].pop(0)
    return max(total)


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_workers_end_together(workers):
    rng = random.Random(workers)  # noqa: S311
    for _ in range(50):
        seconds = [rng.choice([15, 20, 30, 60, 200]) for _ in range(40)]
        ideal = max(sum(seconds) / workers, max(seconds))
        ordered = spread(seconds, float, workers)
        assert sorted(ordered) == sorted(seconds)
        assert makespan(ordered, workers) <= 1.15 * ideal


def test_two_long_tests_do_not_meet_in_one_worker():
    assert spread([10, 300, 10, 300], float, 2) == [300, 10, 300, 10]
    assert spread([10, 300, 200], float, 2) == [300, 200, 10]
    assert spread([], float, 2) == []


def test_more_workers_than_memory_are_refused_with_what_fits():
    check_memory(2, 4096)
    check_memory(8, 0)
    with pytest.raises(UsageError) as refused:
        check_memory(8, 4096)
    assert refused.value.hint == "-n 6 fits"


@pytest.mark.parametrize(
    ("mib", "processors", "workers"),
    [(65536, 8, 8), (65536, 1, 1), (4096, 8, 6), (100, 8, 1), (0, 8, 8)],
)
def test_a_machine_is_good_for_a_worker_a_processor_with_its_memory(mib, processors, workers):
    assert fitting(mib, processors) == workers
    check_memory(workers, max(mib, 640) if mib else 0)


def test_available_memory_is_the_kernel_s_estimate(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4096000 kB\nMemFree: 1 kB\nMemAvailable:  2097152 kB\n")
    assert available_mib(meminfo) == 2048
    assert available_mib(tmp_path / "missing") == 0
