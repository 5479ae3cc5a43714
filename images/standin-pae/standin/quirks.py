"""Faults of WinRM 2.0 on Server 2003, played on demand; all are off unless asked for.

They are values of the registry key ``HKLM\\SOFTWARE\\pvlab\\WinRMQuirks``, so that they are
switched on in a running guest, with ``reg add``. Sources: reports that the lab's channel has to
live with.

* ``ReceiveErrorAfterMs``: a Receive of a command that has run for longer is answered with a
  bare HTTP 500. ``ReceiveErrors`` says how many such answers there are; all of them without it.
* ``MaxShells``: the quota of shells, instead of the settings'.
* ``CodePage65001``: in a shell of code page 65001, batch files do not run and nothing says so.
* ``TimeoutFaults``: that many Receives are answered with the fault 2150858793 at once, whatever
  the command did; 0xffffffff for all of them.
"""

KEY = "HKLM\\SOFTWARE\\pvlab\\WinRMQuirks"
EVERY = 0xFFFFFFFF
UTF_8 = 65001


class Quirks:
    """The faults that are switched on.

    Args:
        hive: the registry.
    """

    def __init__(self, hive):
        self._hive = hive

    def _number(self, name, default=0):
        value = self._hive.get(KEY, name, default)
        return value if isinstance(value, int) else default

    def _take(self, name):
        """Whether there is one more of a counted fault; counts it."""
        left = self._number(name)
        if 0 < left < EVERY:
            self._hive.set(KEY, name, "REG_DWORD", left - 1)
        return left > 0

    def breaks_receive(self, seconds):
        """Whether the Receive of a command that has run for so long is answered with HTTP 500."""
        after = self._number("ReceiveErrorAfterMs")
        if not after or seconds * 1000 < after:
            return False
        return self._take("ReceiveErrors") if self._has("ReceiveErrors") else True

    def times_out(self):
        """Whether a Receive is answered with an operation timeout."""
        return self._take("TimeoutFaults")

    def max_shells(self, configured):
        """The quota of shells."""
        return self._number("MaxShells") or configured

    def skips_batch_files(self, code_page):
        """Whether batch files of a shell with this code page do not run."""
        return code_page == UTF_8 and self._number("CodePage65001") != 0

    def _has(self, name):
        return self._hive.get(KEY, name, None) is not None
