"""A measured figure: its samples, and the target it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, computed_field


class Figure(BaseModel):
    """One quantity, measured one or more times.

    Attributes:
        name: what was measured.
        unit: ``s``, ``MiB``, ``MB/s``, ``%``, ``runs`` or ``x`` (a ratio).
        samples: every measurement, in the order it was made.
        target: the value it should not exceed, or should reach for a ratio ``at_least``.
        at_least: the target is a lower bound.
        note: how it was measured, where the name does not say.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    unit: str
    samples: tuple[float, ...]
    target: float | None = None
    at_least: bool = False
    note: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def median(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def minimum(self) -> float:
        """The smallest sample."""
        return min(self.samples)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def maximum(self) -> float:
        """The largest sample."""
        return max(self.samples)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def met(self) -> bool | None:
        """Whether the median keeps to the target; None without one."""
        if self.target is None:
            return None
        return self.median >= self.target if self.at_least else self.median <= self.target


def ratio(
    name: str,
    over: Sequence[float],
    under: Sequence[float],
    *,
    target: float,
    at_least: bool = False,
    note: str = "",
) -> Figure:
    """The ratio of two series, pair by pair when they were measured in pairs.

    Series of different lengths are compared by their medians.
    """
    if len(over) == len(under):
        samples = tuple(a / b for a, b in zip(over, under, strict=True))
    else:
        samples = (statistics.median(over) / statistics.median(under),)
    return Figure(name=name, unit="x", samples=samples, target=target, at_least=at_least, note=note)
