"""Waiting inside dom0: a shell loop that sleeps in ``xenstore-watch`` until something changes.

Polling from outside would cost an SSH round trip and a process each time; here the emulated
CPU is idle until xenstored has news.
"""

from __future__ import annotations

from collections.abc import Sequence

# Seconds without news before `quiet` is asked, first and later rounds. The first is short
# because a guest that died before the watches were set fires none of them.
_FIRST_ROUND = 3
_LATER_ROUNDS = 10

# Each watch fires once when it is set; those firings are skipped but for the last, after
# which every watch is in place and one look misses nothing.
_LOOP = r"""
now() { read -r now _ </proc/uptime; now=${now%%.*}; }
now; end=$((now + @SECONDS@))
await() {
  round=@FIRST@
  while :; do
    now; began=$now; left=$((end - now))
    if [ "$left" -le 0 ]; then finish; return; fi
    [ "$round" -le "$left" ] || round=$left
    { { @EVENTS@; } 2>/dev/null & echo "$!"; wait; } | {
      pid= skip=@SKIP@
      while read -r event; do
        case $event in
          [0-9]*) pid=$event ;;
          *)
            if [ "$skip" -gt 0 ]; then skip=$((skip - 1))
            elif [ "$verdict" = pending ]; then judge "$event"
            fi ;;
        esac
        if [ "$verdict" != pending ] && [ -n "$pid" ]; then break; fi
      done
      [ "$verdict" != pending ] || exit 1
      kill "$pid" 2>/dev/null
      finish
      exit 0
    } && return
    quiet
    if [ "$verdict" != pending ]; then finish; return; fi
    now; [ "$now" -gt "$began" ] || sleep 1
    round=@LATER@
  done
}
"""


def wait_loop(paths: Sequence[str], seconds: int, *, watches: bool) -> str:
    """Shell text that defines ``await``.

    The script around it defines ``judge EVENT`` and ``quiet`` (called after a change, and
    after some seconds without one; both may set ``verdict`` to something other than
    ``pending``) and ``finish`` (reports; called once, in a subshell or not).

    Args:
        paths: xenstore paths to watch, in shell words: may hold ``$variables``. The event
            of a path is the path that changed; without watches every event is ``tick``.
        seconds: from the start of the script to the last ``judge``.
        watches: whether dom0 has ``xenstore-watch`` and ``timeout``; Xen 3.1's does not, and
            is polled once a second.
    """
    if watches:
        events = 'exec timeout "$round" xenstore-watch ' + " ".join(f'"{one}"' for one in paths)
        skip = len(paths) - 1
    else:
        events = 'while [ "$round" -gt 0 ]; do echo tick; sleep 1; round=$((round - 1)); done'
        skip = 0
    return (
        _LOOP.replace("@SECONDS@", str(seconds))
        .replace("@FIRST@", str(_FIRST_ROUND))
        .replace("@LATER@", str(_LATER_ROUNDS))
        .replace("@EVENTS@", events)
        .replace("@SKIP@", str(skip))
    )


def list_nodes(paths: Sequence[str], *, whole_paths: bool) -> str:
    """Shell text that prints the nodes below ``paths`` as ``PATH/NODE = "VALUE"`` lines.

    Args:
        paths: shell words. A missing one ends the list, so put the likely ones first.
        whole_paths: whether ``xenstore-ls`` has ``-f``; Xen 3.1's has not, takes one path,
            and only nodes directly below are then printed.
    """
    if whole_paths:
        return "xenstore-ls -f " + " ".join(f'"{one}"' for one in paths) + " 2>/dev/null"
    return "; ".join(
        f'xenstore-ls "{one}" 2>/dev/null | sed -n "s|^\\([^ ]\\)|{one}/\\1|p"' for one in paths
    )
