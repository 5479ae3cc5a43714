"""fc.exe: compare two files.

Texts and exit codes (0 same, 1 different, 2 cannot open, -1 bad arguments): Server 2003
command-line reference, "Fc".
"""

CHUNK = 1 << 16


def run(ctx):
    """``fc [/b] [/a] [/c] [/l] [/n] [/w] file1 file2``."""
    flags = set()
    names = []
    for word in ctx.args:
        if word.startswith("/"):
            if word[1:].lower() not in ("a", "b", "c", "l", "n", "t", "u", "w"):
                ctx.err("FC: Invalid Switch\n")
                return -1
            flags.add(word[1:].lower())
        else:
            names.append(word)
    if len(names) != 2:
        ctx.err("FC: Insufficient number of file specifications\n")
        return -1
    files = []
    try:
        for name in names:
            try:
                files.append(open(ctx.path(name), "rb"))  # noqa: SIM115 - closed below
            except OSError:
                ctx.err(f"FC: cannot open {name.upper()} - No such file or folder\n\n")
                return 2
        ctx.out(f"Comparing files {names[0]} and {names[1].upper()}\n")
        if "b" in flags:
            return _binary(ctx, names, *files)
        return _text(ctx, names, flags, *files)
    finally:
        for file in files:
            file.close()


def _binary(ctx, names, left, right):
    offset = 0
    same = True
    while True:
        ctx.check()
        one, two = left.read(CHUNK), right.read(CHUNK)
        if one != two:
            same = False
            lines = [
                f"{offset + index:08X}: {a:02X} {b:02X}\n"
                for index, (a, b) in enumerate(zip(one, two, strict=False))
                if a != b
            ]
            ctx.out("".join(lines))
        if len(one) != len(two):
            same = False
            longer, other = names if len(one) > len(two) else reversed(names)
            ctx.out(f"FC: {longer.upper()} longer than {other.upper()}\n\n")
            return 1
        if not one:
            break
        offset += len(one)
    ctx.out("FC: no differences encountered\n\n" if same else "\n")
    return 0 if same else 1


def _text(ctx, names, flags, left, right):
    def lines(file):
        found = file.read().decode("cp437").splitlines()
        if "c" in flags:
            found = [line.lower() for line in found]
        if "w" in flags:
            found = [" ".join(line.split()) for line in found]
        return found

    one, two = lines(left), lines(right)
    if one == two:
        ctx.out("FC: no differences encountered\n\n")
        return 0
    start = 0
    while start < min(len(one), len(two)) and one[start] == two[start]:
        start += 1
    end = 0
    while end < min(len(one), len(two)) - start and one[-1 - end] == two[-1 - end]:
        end += 1
    for name, found in ((names[0], one), (names[1].upper(), two)):
        # One line of context on each side, as FC shows.
        first, last = max(0, start - 1), min(len(found), len(found) - end + 1)
        ctx.out(f"***** {name}\n")
        for number in range(first, last):
            mark = f"{number + 1:5d}:  " if "n" in flags else ""
            ctx.out(f"{mark}{found[number]}\n")
    ctx.out("*****\n\n")
    return 1
