"""One result type for every command, wherever it ran."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.errors import LabBroken


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command gave.

    Attributes:
        command: the command line as it was sent.
        exit_code: its exit status.
        stdout: decoded standard output, line ends as the remote side wrote them.
        stderr: decoded standard error.
        seconds: wall time from sending to the last byte.
        where: ``"host"``, ``"dom0"`` or the guest's name.
    """

    command: str
    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    where: str

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.exit_code == 0

    @property
    def lines(self) -> list[str]:
        """Standard output as lines without their ends."""
        return self.stdout.splitlines()

    def check(self) -> CommandResult:
        """This result, if the command succeeded.

        Raises:
            LabBroken: it did not; the message carries command, status and last output line.
        """
        if self.ok:
            return self
        tail = (self.stderr.strip() or self.stdout.strip()).splitlines()
        raise LabBroken(
            f"{self.where}: `{self.command}` exited {self.exit_code}"
            + (f": {tail[-1].strip()}" if tail else "")
        )
