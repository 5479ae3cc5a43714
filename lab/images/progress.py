"""How a build tells what it is doing, whoever listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener. Every call names the image it is about."""

    def started(self, image: str, minutes: float) -> None:
        """A build begins; ``minutes`` is the recipe's estimate."""

    def waiting(self, image: str, reason: str) -> None:
        """The build has to wait, for instance for another one of the same image."""

    def step(self, image: str, text: str) -> None:
        """The build reached its next step."""

    def output(self, image: str, line: str) -> None:
        """A program the build started wrote a line."""

    def finished(self, image: str, seconds: float) -> None:
        """The image is in the store."""

    def failed(self, image: str) -> None:
        """The build was given up."""


class Silent:
    """The listener that says nothing."""

    def started(self, image: str, minutes: float) -> None:
        """Say nothing."""

    def waiting(self, image: str, reason: str) -> None:
        """Say nothing."""

    def step(self, image: str, text: str) -> None:
        """Say nothing."""

    def output(self, image: str, line: str) -> None:
        """Say nothing."""

    def finished(self, image: str, seconds: float) -> None:
        """Say nothing."""

    def failed(self, image: str) -> None:
        """Say nothing."""
