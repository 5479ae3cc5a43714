"""The remote shells of WinRM and the commands in them (MS-WSMV section 3.1.4).

A shell holds environment and working folder; each command runs a cmd.exe of its own with
them, in a thread of the server.
"""

import threading
import time
import traceback

from standin.cmd import Interpreter, Session
from standin.console import Queue, TerminatedError
from standin.soap import new_id

#: STATUS_CONTROL_C_EXIT as the signed 32-bit number a console program returns on Ctrl+C.
CONTROL_C_EXIT = -1073741510


class Output:
    """One output stream of a command.

    Args:
        command: the ``Command`` whose condition guards it.
    """

    def __init__(self, command):
        self._command = command
        self.data = bytearray()

    def write(self, data):
        """Keep ``data`` until a Receive takes it; waits while too much is held.

        Raises:
            TerminatedError: the command was ended from outside.
        """
        with self._command.changed:
            if self._command.process.ended:
                raise TerminatedError
            self.data += data
            # A program that prints without end must not eat the guest's memory.
            while len(self.data) > Command.HELD and not self._command.process.ended:
                self._command.changed.wait()
            self._command.changed.notify_all()

    def close(self):
        """Nothing to do: the stream ends with its command."""


class Command:
    """One command of a shell.

    Attributes:
        id: its CommandId.
        exit_code: ``None`` while it runs.
        changed: notified whenever there is something for Receive.
    """

    #: Bytes of output held before the command waits for a Receive.
    HELD = 8 << 20

    def __init__(self, system, shell, line, identifier):
        self.id = identifier
        self.exit_code = None
        self.started = time.monotonic()
        self.changed = threading.Condition()
        self.process = system.processes.start("cmd.exe")
        self.stdin = Queue()
        self.stdout = Output(self)
        self.stderr = Output(self)
        self.process.on_end(self.stdin.abort)
        self.process.on_end(self._wake)
        self._line = line
        self._interpreter = Interpreter(
            system, shell.session.copy(), self.process, self.stdin, self.stdout, self.stderr
        )
        threading.Thread(target=self._run, name="command", daemon=True).start()

    def _wake(self):
        with self.changed:
            self.changed.notify_all()

    def _run(self):
        try:
            code = self._interpreter.run(self._line)
        except TerminatedError:
            code = self.process.exit_code
        except Exception:  # a bug of the stand-in: the client must still see an end
            traceback.print_exc()
            code = 255
        self.process.exited()
        with self.changed:
            self.exit_code = code
            self.changed.notify_all()

    def receive(self, timeout_s, coalesce_s, limit):
        """Output and state, as soon as there is something to tell.

        Args:
            timeout_s: how long to wait for it.
            coalesce_s: with output but no end, how much longer to wait for more.
            limit: most bytes of output to return.

        Returns:
            (stdout, stderr, exit code or ``None``), or ``None`` if the time ran out.
        """
        deadline = time.monotonic() + timeout_s
        patience = None
        with self.changed:
            while self.exit_code is None and not self.process.ended:
                now = time.monotonic()
                held = len(self.stdout.data) + len(self.stderr.data)
                if held >= limit:
                    break
                if held and patience is None:
                    patience = now + coalesce_s
                end = deadline if patience is None else min(deadline, patience)
                if now >= end:
                    break
                self.changed.wait(end - now)
            if self.process.ended:
                # It was told to end: report that now, its thread may still be busy.
                self.stdout.data.clear()
                self.stderr.data.clear()
                if self.exit_code is None:
                    self.exit_code = self.process.exit_code
            stdout = bytes(self.stdout.data[:limit])
            del self.stdout.data[: len(stdout)]
            stderr = bytes(self.stderr.data[: limit - len(stdout)])
            del self.stderr.data[: len(stderr)]
            left = self.stdout.data or self.stderr.data
            code = None if left else self.exit_code
            self.changed.notify_all()
        if code is None and not stdout and not stderr:
            return None
        return stdout, stderr, code


class Shell:
    """One shell.

    Args:
        system: the ``standin.system.System``.
        env: variables to add to the system's.
        folder: Windows path to start in; empty for the user's profile.
        idle_s: seconds without a request after which it is dropped.
        code_page: of its console.
    """

    def __init__(self, system, env, folder, idle_s, code_page):
        self._system = system
        self.id = new_id()
        self.session = Session({**system.environment(), **env}, folder or system.profile_folder)
        self.session.code_page = code_page
        self.idle_s = idle_s
        self.used = time.monotonic()
        self.commands = {}

    def start(self, line, identifier=""):
        """Run a command line; returns its ``Command``."""
        command = Command(self._system, self, line, identifier or new_id())
        self.commands[command.id] = command
        return command

    def close(self):
        """End everything that runs in it."""
        for command in list(self.commands.values()):
            command.process.end()
        self.commands.clear()


class Shells:
    """All shells of the server.

    Args:
        system: the ``standin.system.System``.
    """

    def __init__(self, system):
        self._system = system
        self._lock = threading.Lock()
        self._shells = {}

    def open(self, env, folder, idle_s, code_page):
        """A new shell, or ``None`` when the quota is used up."""
        self._drop_idle()
        quota = self._system.quirks.max_shells(self._system.config.max_shells)
        with self._lock:
            if len(self._shells) >= quota:
                return None
            shell = Shell(self._system, env, folder, idle_s, code_page)
            self._shells[shell.id] = shell
            return shell

    def ids(self):
        """The ids of all shells, oldest first."""
        self._drop_idle()
        with self._lock:
            return list(self._shells)

    def get(self, identifier):
        """The shell of this id, marked as used, or ``None``."""
        self._drop_idle()
        with self._lock:
            shell = self._shells.get(identifier.upper())
            if shell is not None:
                shell.used = time.monotonic()
            return shell

    def close(self, identifier):
        """Delete a shell; whether there was one."""
        with self._lock:
            shell = self._shells.pop(identifier.upper(), None)
        if shell is not None:
            shell.close()
        return shell is not None

    def _drop_idle(self):
        now = time.monotonic()
        with self._lock:
            idle = [key for key, shell in self._shells.items() if now - shell.used > shell.idle_s]
            dropped = [self._shells.pop(key) for key in idle]
        for shell in dropped:
            shell.close()
