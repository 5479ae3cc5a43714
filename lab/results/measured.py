"""What tests measured, for the plots of a report: bars in groups, from the tests' properties."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.results.record import TestRecord

BAR = "pvlab.bar."
"""How properties of tests begin that are bars of a plot: ``pvlab.bar.GROUP|LABEL``."""

_BETWEEN = "|"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: what it is of.
        value: its length, in the group's unit; 0 or more.
    """

    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Plot:
    """Bars that are to be compared.

    Attributes:
        title: what was measured, with its unit.
        bars: in the order in which they were measured.
    """

    title: str
    bars: tuple[Bar, ...]

    @property
    def most(self) -> float:
        """The longest bar's value."""
        return max(bar.value for bar in self.bars)


def bar_property(group: str, label: str, value: float) -> tuple[str, str]:
    """A bar as a property of a test.

    Args:
        group: what was measured, with its unit.
        label: of what.
        value: in that unit.
    """
    return f"{BAR}{group.replace(_BETWEEN, ' ')}{_BETWEEN}{label}", f"{value:.6g}"


def plots(tests: Iterable[TestRecord]) -> tuple[Plot, ...]:
    """The plots of a run; what is no number, as a record from elsewhere may hold, is no bar."""
    groups: dict[str, list[Bar]] = {}
    for test in tests:
        for name, text in test.properties.items():
            group, between, label = name.removeprefix(BAR).partition(_BETWEEN)
            if not name.startswith(BAR) or not between:
                continue
            try:
                value = float(text)
            except ValueError:
                continue
            if 0.0 <= value < float("inf"):
                groups.setdefault(group, []).append(Bar(label, value))
    return tuple(Plot(title, tuple(bars)) for title, bars in groups.items())
