"""The process table: what tasklist shows and taskkill ends.

Every tool is a thread of the server. An entry ends by raising its flag and calling what the
tool registered: waking a blocked read, killing a real child.
"""

import threading


class Process:
    """One running program.

    Attributes:
        pid: a multiple of 4, as on Windows.
        name: image name, such as ``findstr.exe``.
        ended: set once it was ended from outside.
        exit_code: what it returns when ended from outside.
    """

    def __init__(self, table, pid, name):
        self._table = table
        self.pid = pid
        self.name = name
        self.ended = False
        self.exit_code = 1
        self._callbacks = []
        self._lock = threading.RLock()

    def on_end(self, callback):
        """Call ``callback`` when the process is ended from outside (at once if it was)."""
        with self._lock:
            if not self.ended:
                self._callbacks.append(callback)
                return
        callback()

    def forget(self, callback):
        """Undo ``on_end``; once this has returned, the callback runs no more."""
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def end(self, exit_code=1):
        """End it from outside."""
        with self._lock:
            if self.ended:
                return
            self.ended = True
            self.exit_code = exit_code
            callbacks, self._callbacks = self._callbacks, []
            # Under the lock: who forgets one in time may close what it uses.
            for callback in callbacks:
                callback()

    def exited(self):
        """It has returned: take it off the table."""
        self._table.remove(self)


class ProcessTable:
    """All processes, with the fixed entries a running system has."""

    FIXED = ((0, "System Idle Process"), (4, "System"), (428, "services.exe"), (744, "svchost.exe"))

    def __init__(self):
        self._lock = threading.Lock()
        self._next = 1000
        self._running = {}

    def start(self, name):
        """A new entry."""
        with self._lock:
            self._next += 4
            process = Process(self, self._next, name)
            self._running[process.pid] = process
            return process

    def detached(self):
        """A parent that is on no list, for programs that outlive what started them."""
        return Process(self, 0, "")

    def remove(self, process):
        """Forget an entry; no error if it is not there."""
        with self._lock:
            self._running.pop(process.pid, None)

    def running(self):
        """The entries that can be ended, oldest first."""
        with self._lock:
            return list(self._running.values())
