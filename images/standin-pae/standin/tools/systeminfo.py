"""systeminfo.exe: the layout of Server 2003's, with the stand-in's own name and facts."""

import os

from standin import PRODUCT, VERSION


def memory_mib(key):
    """A line of /proc/meminfo in MiB."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith(key + ":"):
                    return int(line.split()[1]) // 1024
    except OSError:
        pass
    return 0


def facts(ctx):
    """(label, value) pairs in the order that systeminfo prints them."""
    kernel = os.uname()
    return [
        ("Host Name", ctx.system.config.computer_name),
        ("OS Name", PRODUCT),
        ("OS Version", f"{VERSION} (formats only; {kernel.sysname} {kernel.release})"),
        ("OS Manufacturer", "pvlab"),
        ("OS Configuration", "Standalone Server"),
        ("OS Build Type", kernel.machine),
        ("Windows Directory", "C:\\WINDOWS"),
        ("System Directory", "C:\\WINDOWS\\system32"),
        ("Boot Device", "\\Device\\HarddiskVolume1"),
        ("Total Physical Memory", f"{memory_mib('MemTotal'):,} MB"),
        ("Available Physical Memory", f"{memory_mib('MemAvailable'):,} MB"),
    ]


def run(ctx):
    """``systeminfo [/fo table|list|csv] [/nh]``."""
    words = [word.lower() for word in ctx.args]
    style, header = "list", "/nh" not in words
    words = [word for word in words if word != "/nh"]
    if words[:1] == ["/fo"] and len(words) == 2 and words[1] in ("list", "csv", "table"):
        style = words[1]
    elif words:
        ctx.err(
            f"ERROR: Invalid argument/option - '{words[0]}'.\nType \"SYSTEMINFO /?\" for usage.\n"
        )
        return 1
    rows = facts(ctx)
    if style == "list":
        ctx.out("\n" + "".join(f"{label + ':':27}{value}\n" for label, value in rows))
        return 0
    if header:
        ctx.out(",".join(f'"{label}"' for label, _ in rows) + "\n")
    ctx.out(",".join(f'"{value}"' for _, value in rows) + "\n")
    return 0
