"""tasklist.exe: the processes of the stand-in.

Columns and options: Server 2003 command-line reference, "Tasklist" (/fo, /nh, /fi).
Memory of a thread cannot be told apart, so the server's own is shown for each tool.
"""

NONE = "INFO: No tasks running with the specified criteria.\n"


def memory_kib():
    """Resident memory of the server in KiB."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4
    except OSError:
        return 0


def table(ctx):
    """(image name, process id, memory in KiB) of every process."""
    memory = memory_kib()
    rows = [(name, pid, 28) for pid, name in ctx.system.processes.FIXED]
    return rows + [(item.name, item.pid, memory) for item in ctx.system.processes.running()]


def matches(text, row):
    """Whether a row passes a filter such as ``imagename eq dbgview.exe``.

    Raises:
        ValueError: the filter is not known.
    """
    words = text.lower().split(None, 2)
    if len(words) != 3 or words[1] not in ("eq", "ne"):
        raise ValueError(text)
    name, operator, wanted = words
    if name == "imagename":
        value = row[0].lower()
        same = value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted
    elif name == "pid":
        same = str(row[1]) == wanted
    else:
        raise ValueError(text)
    return same == (operator == "eq")


def run(ctx):
    """``tasklist [/fo table|list|csv] [/nh] [/fi filter]``."""
    args = ctx.args
    style, header, filters = "table", True, []
    index = 0
    while index < len(args):
        word = args[index].lower()
        if word == "/nh":
            header = False
        elif word in ("/fo", "/fi") and index + 1 < len(args):
            index += 1
            if word == "/fo":
                style = args[index].lower()
            else:
                filters.append(args[index])
        else:
            return _bad(ctx, args[index])
        index += 1
    if style not in ("table", "list", "csv"):
        return _bad(ctx, style)
    try:
        rows = [row for row in table(ctx) if all(matches(text, row) for text in filters)]
    except ValueError:
        ctx.err("ERROR: The search filter cannot be recognized.\n")
        return 1
    if not rows:
        ctx.out(NONE)
        return 0
    if style == "csv":
        if header:
            ctx.out('"Image Name","PID","Session Name","Session#","Mem Usage"\n')
        for name, pid, memory in rows:
            ctx.out(f'"{name}","{pid}","Console","0","{memory:,} K"\n')
    elif style == "list":
        for name, pid, memory in rows:
            ctx.out(
                f"\nImage Name:   {name}\nPID:          {pid}\nSession Name: Console\n"
                f"Session#:     0\nMem Usage:    {memory:,} K\n"
            )
    else:
        if header:
            ctx.out(
                "\nImage Name                   PID Session Name     Session#    Mem Usage\n"
                "========================= ====== ================ ======== ============\n"
            )
        for name, pid, memory in rows:
            ctx.out(f"{name[:25]:25} {pid:6} {'Console':16} {0:8} {f'{memory:,} K':>12}\n")
    return 0


def _bad(ctx, word):
    ctx.err(f"ERROR: Invalid argument/option - '{word}'.\nType \"TASKLIST /?\" for usage.\n")
    return 1
