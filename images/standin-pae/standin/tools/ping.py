"""ping.exe: the loopback answers here; other hosts are tried with the real program.

Format: Server 2003 command-line reference, "Ping".
"""

import time

USAGE = "\nUsage: ping [-t] [-a] [-n count] [-l size] [-f] [-i TTL] [-v TOS] [-w timeout] target\n"


def run(ctx):
    """``ping [-n count] [-w ms] [-l size] target``."""
    args = ctx.args
    count, size, timeout_ms, target = 4, 32, 4000, None
    index = 0
    while index < len(args):
        word = args[index].lower()
        if word[:1] in "-/" and len(word) > 1:
            option = word[1:]
            if option in ("n", "l", "w", "i", "v", "r", "s", "j", "k"):
                index += 1
                if index >= len(args) or not args[index].isdigit():
                    ctx.out(f"Value must be supplied for option {word}.\n")
                    return 1
                number = int(args[index])
                if option == "n":
                    count = number
                elif option == "l":
                    size = number
                elif option == "w":
                    timeout_ms = number
            elif option == "t":
                count = 1 << 31
            elif option not in ("a", "f"):
                ctx.out(f"Bad option {args[index]}.\n{USAGE}")
                return 1
        else:
            target = args[index]
        index += 1
    if target is None:
        ctx.out(USAGE)
        return 1
    return _ping(ctx, target, count, size, timeout_ms)


def _ping(ctx, target, count, size, timeout_ms):
    import socket
    import threading

    try:
        address = socket.gethostbyname(target)
    except OSError:
        ctx.out(
            f"Ping request could not find host {target}. Please check the name and try again.\n"
        )
        return 1
    shown = address if address == target else f"{target} [{address}]"
    ctx.out(f"\nPinging {shown} with {size} bytes of data:\n\n")
    ended = threading.Event()
    ctx.process.on_end(ended.set)
    received = 0
    for number in range(count):
        if number and ended.wait(1.0):
            break
        started = time.monotonic()
        if (
            address.startswith("127.")
            or not ctx.system.host.run(
                "ping",
                "-c",
                "1",
                "-W",
                str(max(1, timeout_ms // 1000)),
                address,
                process=ctx.process,
            )[0]
        ):
            received += 1
            elapsed = int((time.monotonic() - started) * 1000)
            span = f"={elapsed}ms" if elapsed else "<1ms"
            ctx.out(f"Reply from {address}: bytes={size} time{span} TTL=128\n")
        else:
            ctx.out("Request timed out.\n")
    lost = count - received
    ctx.out(
        f"\nPing statistics for {address}:\n    Packets: Sent = {count}, Received = {received}, "
        f"Lost = {lost} ({lost * 100 // max(1, count)}% loss),\n"
    )
    return 0 if received else 1
