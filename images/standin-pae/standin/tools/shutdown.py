"""shutdown.exe: restart or stop the guest.

Switches: Server 2003 command-line reference, "Shutdown": /r /s /a /t /f /c /d /m /l. The
default delay is 30 seconds; the file systems are unmounted and synced before the machine
goes.
"""

import threading

_lock = threading.Lock()
_pending = []


def run(ctx):
    """``shutdown /r|/s [/t seconds] [/f]``, ``shutdown /a``."""
    args = ctx.args
    action = None
    delay = 30
    abort = False
    index = 0
    while index < len(args):
        word = args[index].lower()
        if word[:1] not in "-/" or len(word) < 2:
            return _usage(ctx)
        option = word[1:]
        if option in ("r", "s"):
            action = {"r": "reboot", "s": "poweroff"}[option]
        elif option == "a":
            abort = True
        elif option in ("t", "c", "d", "m"):
            index += 1
            if index >= len(args):
                return _usage(ctx)
            if option == "t":
                if not args[index].isdigit() or int(args[index]) > 600:
                    return _usage(ctx)
                delay = int(args[index])
        elif option not in ("f", "p"):
            return _usage(ctx)
        index += 1
    with _lock:
        running = [process for process in _pending if not process.ended]
        if abort:
            if not running:
                ctx.err(
                    "Unable to abort the system shutdown because no shutdown was in progress."
                    "(1116)\n"
                )
                return 1116
            for process in running:
                process.end()
            _pending.clear()
            return 0
        if action is None:
            return _usage(ctx)
        if running:
            ctx.err("A system shutdown is in progress.(1115)\n")
            return 1115
        process = ctx.system.processes.start("shutdown.exe")
        _pending[:] = [process]
    ctx.system.shut_down(action, delay, process)
    return 0


def _usage(ctx):
    ctx.out(
        "Usage: shutdown [/i | /l | /s | /r | /a | /p | /h | /e] [/f]\n"
        '    [/m \\\\computer][/t xxx][/d [p:]xx:yy [/c "comment"]]\n'
    )
    return 1
