"""The QEMU monitor, as plain calls with deadlines.

The protocol itself is qemu.qmp's work (QEMU docs/interop/qmp-spec). It speaks asyncio; the
lab's callers do not, so one private event loop runs for the length of each call.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError, Runstate

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import LabBroken

T = TypeVar("T")

# What each question of a wait is granted in s, however little is left of the wait: else one
# that runs out between question and answer would pass for a monitor that is silent.
_PROMPT_SECONDS = 2.0


def prompt(deadline: Deadline) -> Deadline:
    """For one question of a wait that ends at ``deadline``."""
    return Deadline(max(deadline.remaining, _PROMPT_SECONDS))


class Monitor:
    """A connection to one QEMU process.

    Args:
        sock: our end of the socket pair whose other end QEMU holds.
        name: whose monitor this is, for messages.
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._name = name
        self._socket = sock
        self._runner = asyncio.Runner()
        self._client = QMPClient(name)
        self._guest_resets = 0

    def connect(self, deadline: Deadline) -> None:
        """Greet and negotiate.

        Raises:
            LabBroken: QEMU did not answer in time, or closed the connection.
        """

        async def greet() -> None:
            try:
                await self._client.connect(self._socket)
            except AssertionError as error:
                # It asserts that nobody has hung up between the last answer and its return.
                raise EOFError from error

        self._run(greet(), "greeting", deadline)

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, deadline: Deadline
    ) -> Any:
        """Run a monitor command and give what it returned.

        Raises:
            LabBroken: the command failed, QEMU is gone, or the deadline expired.
        """
        call = self._client.execute(command, dict(arguments) if arguments else None)
        return self._run(call, command, deadline)

    def human(self, line: str, *, deadline: Deadline) -> str:
        """Run a command of the human monitor and give its text."""
        return str(self.execute("human-monitor-command", {"command-line": line}, deadline=deadline))

    @property
    def guest_resets(self) -> int:
        """How often the machine was reset from inside, as far as was told up to the last
        answer: events come between answers (QAPI, event ``RESET``)."""
        return self._guest_resets

    def wait_saved(self, deadline: Deadline) -> None:
        """Wait until the outgoing migration under way has completed.

        Raises:
            LabBroken: it failed; the message carries QEMU's words.
            DeadlineExpired: it did not end in time.
        """

        def probe() -> None:
            info = self.execute("query-migrate", deadline=prompt(deadline))
            status = info.get("status", "none")
            if status in ("failed", "cancelled"):
                raise LabBroken(
                    f"{self._name}: saving the machine's state {status}: "
                    f"{info.get('error-desc', 'no reason given')}"
                )
            if status != "completed":
                raise NotYet(f"migration status {status}")

        wait_for("the machine's state to be saved", probe, deadline, interval=0.01)

    def wait_loaded(self, deadline: Deadline) -> None:
        """Wait until the incoming migration has completed.

        QEMU 5.2 reports no migration status on the incoming side, so the run state tells
        (QAPI ``RunState``): it leaves ``inmigrate`` when all is loaded, and QEMU exits when
        loading fails.

        Raises:
            LabBroken: QEMU is gone.
            DeadlineExpired: it did not end in time.
        """

        def probe() -> None:
            status = self.execute("query-status", deadline=prompt(deadline))["status"]
            if status == "inmigrate":
                raise NotYet(f"run state {status}")

        wait_for("the machine's state to be loaded", probe, deadline, interval=0.01)

    def _count_resets(self) -> None:
        for event in self._client.events.clear():
            data = event.get("data")
            if event.get("event") == "RESET" and isinstance(data, dict) and data.get("guest"):
                self._guest_resets += 1

    def close(self) -> None:
        """Let go of the monitor; never raises."""
        if self._client.runstate is not Runstate.IDLE:
            with contextlib.suppress(QMPError, OSError, asyncio.TimeoutError, EOFError):
                self._runner.run(asyncio.wait_for(self._client.disconnect(), 5))
        self._runner.close()
        self._socket.close()

    def _run(self, call: Coroutine[Any, Any, T], what: str, deadline: Deadline) -> T:
        async def bounded() -> T:
            return await asyncio.wait_for(call, max(deadline.remaining, 0.001))

        try:
            answer = self._runner.run(bounded())
            self._count_resets()
            return answer
        except ExecuteError as error:
            raise LabBroken(f"{self._name}: QEMU refused {what}: {error}") from None
        except TimeoutError:
            raise LabBroken(f"{self._name}: QEMU's monitor did not answer {what} in time") from None
        except (QMPError, OSError, EOFError) as error:
            raise LabBroken(
                f"{self._name}: QEMU's monitor is gone ({type(error).__name__})"
            ) from None
