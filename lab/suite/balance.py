"""Spreading tests over workers, and how many workers a machine has memory for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from lab.core.errors import UsageError

T = TypeVar("T")

CLONE_MIB = 512
"""A clone's own memory, in MiB: what differs from the template, which all clones share.
Measured with the stand-in after an attach and a file of some hundred KiB: 430 to 500."""

WORKER_MIB = 128
"""A worker's own memory, in MiB: Python with the lab's libraries. Measured: 90 to 110."""

MEMINFO = Path("/proc/meminfo")


def spread(items: Sequence[T], seconds: Callable[[T], float], workers: int) -> list[T]:
    """An order in which workers that take the next test when they are free end together.

    The longest come first, so that no long one is left for the end. pytest-xdist gives every
    worker two tests at the start, neighbours in this order: the longest is therefore followed
    by the shortest of these first ones.

    Args:
        items: the tests.
        seconds: what one takes.
        workers: how many there are.
    """
    longest_first = sorted(items, key=seconds, reverse=True)
    if len(items) < 2 * workers:
        # Then each worker gets them one by one.
        return longest_first
    first, rest = longest_first[: 2 * workers], longest_first[2 * workers :]
    pairs = zip(first[:workers], reversed(first[workers:]), strict=True)
    return [item for pair in pairs for item in pair] + rest


def fitting(available_mib: int, processors: int) -> int:
    """How many workers a machine is good for: one for each processor, as far as memory goes.

    Args:
        available_mib: free memory, in MiB; 0 when the system does not tell.
        processors: that this process may use; a clone has one.
    """
    if available_mib:
        processors = min(processors, available_mib // (CLONE_MIB + WORKER_MIB))
    return max(1, processors)


def check_memory(workers: int, available_mib: int) -> None:
    """Refuse more workers than fit into memory: a machine that swaps fails tests at random.

    Args:
        workers: how many were asked for.
        available_mib: free memory, in MiB; 0 when the system does not tell.

    Raises:
        UsageError: with the number that fits.
    """
    each = CLONE_MIB + WORKER_MIB
    if available_mib and workers * each > available_mib:
        raise UsageError(
            f"{workers} workers need {workers * each} MiB of memory, {available_mib} are free",
            hint=f"-n {max(1, available_mib // each)} fits",
        )


def available_mib(meminfo: Path = MEMINFO) -> int:
    """Memory that can be had without swapping, in MiB: ``MemAvailable`` of proc(5), which is
    in KiB. 0 when the system does not tell."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), "0")
    return int(found) // 1024
