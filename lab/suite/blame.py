"""Who is answerable for a failure: the driver, the lab, or nobody can say.

A pure function over what is known when a test or a scenario has failed. It starts nothing and asks
nobody, so that every rule below is a line in a table of unit tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from lab.core.errors import Blame, GuestCrashed, PvlabError


class Health(Protocol):
    """What ``lab.place.place.Health`` tells of a place after a failure."""

    @property
    def ok(self) -> bool:
        """Whether QEMU is alive and dom0 answers."""
        ...

    @property
    def cause(self) -> str:
        """What is wrong, in one line; empty when nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Blame for one failure.

    Attributes:
        blame: who is answerable.
        reason: one line that says why.
    """

    blame: Blame
    reason: str

    def __str__(self) -> str:
        return f"{self.blame.upper()}: {self.reason}"


def first_line(text: str) -> str:
    """The first line of a text that is not blank, without blanks around it."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in an exception group, in the order they happened; or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def decide(
    error: BaseException | None,
    *,
    health: Health | None,
    crash: GuestCrashed | None,
    driver_test: bool,
    assertions: tuple[type[BaseException], ...] = (AssertionError,),
) -> Verdict:
    """Blame somebody for a failed test.

    The rules, the first that applies wins:

    1. The place is broken (QEMU dead, dom0 silent): the lab, whatever the test said.
    2. The guest crashed: the driver if the test uses one, else the lab.
    3. An error of the lab's own types carries its blame.
    4. A failed assertion: the driver if the test uses one, else the lab.
    5. Any other Python exception is a mistake in the lab or its tests: the lab.

    Args:
        error: what the test raised; ``None`` when pytest failed it without an exception,
            as it does for a strict ``xfail`` that passed.
        health: the place's health after the failure; ``None`` when the test had no place yet.
        crash: what the crash monitor found after the failure.
        driver_test: whether the test uses the driver under test.
        assertions: what a check that does not hold raises.

    Returns:
        The blame and its reason.
    """
    if health is not None and not health.ok:
        return Verdict(Blame.LAB, f"the place broke during the test: {health.cause}")
    errors = list(leaves(error)) if error is not None else []
    if crash is None:
        crash = next((e for e in errors if isinstance(e, GuestCrashed)), None)
    if crash is not None:
        if driver_test:
            return Verdict(Blame.DRIVER, crash.message)
        return Verdict(Blame.LAB, f"no driver under test was in the guest: {crash.message}")
    if not errors:
        return Verdict(Blame.UNDECIDED, "the test was expected to fail, and passed")
    first = errors[0]
    if isinstance(first, PvlabError):
        return Verdict(first.blame, first.message)
    said = first_line(str(first))
    if isinstance(first, assertions):
        if driver_test:
            return Verdict(Blame.DRIVER, said or "an assertion of the test does not hold")
        return Verdict(Blame.LAB, f"a check of the lab itself failed: {said}".rstrip(": "))
    return Verdict(Blame.LAB, f"unexpected {type(first).__name__}: {said}".rstrip(": "))
