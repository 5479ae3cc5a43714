"""How much a run does: the same tests, with counts for a look, a verdict or a night."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from lab.core.errors import UsageError

SMOKE_SHARE = 8
"""A smoke run does an eighth of what is standard, unless a test says otherwise."""

SOAK_FACTOR = 8
"""A soak run does eight times what is standard, unless a test says otherwise."""


class Level(enum.StrEnum):
    """How thorough a run is."""

    SMOKE = "smoke"
    STANDARD = "standard"
    SOAK = "soak"

    @classmethod
    def of(cls, name: str) -> Level:
        """The level of that name.

        Raises:
            UsageError: there is none.
        """
        try:
            return cls(name)
        except ValueError:
            raise UsageError(
                f"unknown intensity {name}", hint=f"one of: {', '.join(cls)}"
            ) from None


@dataclass(frozen=True, slots=True)
class Count:
    """How often a test does something, by intensity.

    Attributes:
        standard: for a verdict, on a machine with KVM.
        smoke: for a look; an eighth of ``standard``, at least 1, when None.
        soak: for a night; eight times ``standard`` when None.
        tcg: for a verdict where the processor is emulated; ``standard`` when None.
    """

    standard: int
    smoke: int | None = None
    soak: int | None = None
    tcg: int | None = None

    def at(self, level: Level, accelerator: str) -> int:
        """The count.

        Args:
            level: of the run.
            accelerator: its name; everything but ``"kvm"`` is emulation.
        """
        if level is Level.SMOKE:
            return self.smoke if self.smoke is not None else max(1, self.standard // SMOKE_SHARE)
        if level is Level.SOAK:
            return self.soak if self.soak is not None else self.standard * SOAK_FACTOR
        if accelerator != "kvm" and self.tcg is not None:
            return self.tcg
        return self.standard


@dataclass(frozen=True, slots=True)
class Intensity:
    """A run's intensity on the accelerator it has.

    Attributes:
        level: as the user chose it.
        accelerator: ``"kvm"``, ``"tcg-hvm"`` or ``"tcg-pv"``.
    """

    level: Level
    accelerator: str

    def count(
        self,
        standard: int | Count,
        smoke: int | None = None,
        soak: int | None = None,
        tcg: int | None = None,
    ) -> int:
        """How often to do something.

        Args:
            standard: a ``Count``, so that the marker ``cost`` can name the same one, or the
                standard number.
            smoke: see ``Count``; likewise the others.
            soak: see ``Count``.
            tcg: see ``Count``.
        """
        if isinstance(standard, Count):
            return standard.at(self.level, self.accelerator)
        return Count(standard, smoke, soak, tcg).at(self.level, self.accelerator)
