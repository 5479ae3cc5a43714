r"""findstr.exe: search for strings or simple regular expressions.

Syntax and switches: Server 2003 command-line reference, "Findstr": ``.`` any character,
``*`` repeats, ``^`` and ``$`` line ends, ``[class]``, ``\x`` escapes, ``\<`` and ``\>`` word
ends. Exit codes: 0 found, 1 not found, 2 an error. ``findstr "^"`` passes every line on,
which is how the lab writes files, so that case copies bytes as they come.
"""

import os
import re

from standin import builtins


class _UsageError(Exception):
    pass


class _Options:
    def __init__(self):
        self.flags = set()
        self.patterns = []
        self.names = []


def _parse(ctx):
    options = _Options()
    strings_given = False
    args = ctx.args
    for word in args:
        if word.startswith(("/", "-")) and len(word) > 1 and not options.names:
            low = word[1:].lower()
            if low.startswith("c:"):
                options.patterns.append((word[3:], True))
                strings_given = True
            elif low.startswith("g:"):
                with open(ctx.path(word[3:]), "rb") as file:
                    lines = file.read().decode("cp437").splitlines()
                options.patterns += [(line, False) for line in lines]
                strings_given = True
            elif low.startswith("f:"):
                with open(ctx.path(word[3:]), "rb") as file:
                    options.names += file.read().decode("cp437").split()
            elif low.startswith(("a:", "d:")):
                pass
            elif all(char in "belrsivxnmop" for char in low):
                options.flags.update(low)
            else:
                raise _UsageError(word)
        elif not strings_given:
            options.patterns += [(part, False) for part in word.split(" ") if part]
            strings_given = True
        else:
            options.names.append(word)
    if not strings_given or not options.patterns:
        raise _UsageError("no search string")
    return options


def _regex(text):
    """A findstr expression as a Python one, for bytes."""
    out = []
    index = 0
    while index < len(text):
        char = text[index]
        if char == "\\" and index + 1 < len(text):
            index += 1
            out.append(
                {"<": r"\b(?=\w)", ">": r"\b(?<=\w)"}.get(text[index]) or re.escape(text[index])
            )
        elif char == "[" and "]" in text[index + 2 :]:
            end = text.index("]", index + 2)
            body = text[index + 1 : end]
            negated = body.startswith("^")
            body = body[1:] if negated else body
            body = body.replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            out.append(f"[{'^' if negated else ''}{body}]")
            index = end
        elif char in ".*":
            # A leading star is a plain character.
            out.append(char if char == "." or out else "\\*")
        elif char == "^" and index == 0:
            out.append("^")
        elif char == "$" and index == len(text) - 1:
            out.append("$")
        else:
            out.append(re.escape(char))
        index += 1
    return "".join(out)


def _compile(options):
    """One expression for all search strings."""
    flags = options.flags
    parts = []
    for text, literal in options.patterns:
        # /c: strings are literal unless /r is given; others are expressions unless /l is.
        plain = "l" in flags or (literal and "r" not in flags)
        body = re.escape(text) if plain else _regex(text)
        if "x" in flags or "b" in flags:
            body = "^" + body
        if "x" in flags or "e" in flags:
            body += "$"
        parts.append(f"(?:{body})")
    try:
        return re.compile(
            "|".join(parts).encode("cp437", "replace"), re.IGNORECASE if "i" in flags else 0
        )
    except re.error as error:
        raise _UsageError(str(error)) from error


def run(ctx):
    """``findstr [switches] strings [files]``; standard input without files."""
    try:
        options = _parse(ctx)
        pattern = _compile(options)
    except _UsageError:
        ctx.err("FINDSTR: Bad command line\n")
        return 2
    except OSError:
        ctx.err("FINDSTR: Cannot open search string file\n")
        return 2
    everything = [text for text, _ in options.patterns] == ["^"] and not options.flags
    if not options.names:
        if everything:
            return _pass_on(ctx)
        return 0 if _search(ctx, options, pattern, _lines(ctx.stdin.read), "") else 1
    interpreter = _Globber(ctx)
    found = False
    failed = False
    several = len(options.names) > 1 or "s" in options.flags
    for name in options.names:
        several = several or "*" in name or "?" in name
        try:
            targets = _targets(interpreter, name, "s" in options.flags)
        except OSError:
            targets = []
        if not targets:
            ctx.err(f"FINDSTR: Cannot open {name}\n")
            failed = True
        for path, shown in targets:
            try:
                with open(path, "rb") as file:
                    lines = _lines(lambda file=file: file.read(1 << 16))
                    found |= _search(ctx, options, pattern, lines, shown if several else "", shown)
            except OSError:
                ctx.err(f"FINDSTR: Cannot open {shown}\n")
                failed = True
    return 0 if found else 2 if failed and not found and len(options.names) == 1 else 1


class _Globber:
    """What ``builtins`` needs of an interpreter to expand names."""

    def __init__(self, ctx):
        self.system = ctx.system
        self.session = ctx.session


def _targets(interpreter, name, recurse):
    """(real path, shown name) of the files a name means."""
    prefix = name[: max(name.rfind("\\"), name.rfind("/"), name.rfind(":")) + 1]
    paths = [path for path in builtins._expand(interpreter, name) if os.path.isfile(path)]
    targets = [(path, prefix + os.path.basename(path)) for path in paths]
    if recurse:
        folder, _ = builtins._glob(interpreter, name)
        matches = builtins.matcher(name[len(prefix) :])
        targets = [
            (
                os.path.join(base, leaf),
                prefix + os.path.relpath(os.path.join(base, leaf), folder).replace("/", "\\"),
            )
            for base, _, leaves in os.walk(folder)
            for leaf in sorted(leaves)
            if matches(leaf)
        ]
    return targets


def _pass_on(ctx):
    """Copy standard input; a last line without an end gets one."""
    last = b""
    while data := ctx.stdin.read():
        ctx.check()
        ctx.stdout.write(data)
        last = data[-1:]
    if last and last != b"\n":
        ctx.stdout.write(b"\r\n")
    return 0 if last else 1


def _lines(read):
    """Lines with their ends, from chunks."""
    rest = b""
    while data := read():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _search(ctx, options, pattern, lines, prefix, name=""):
    """Print matching lines; whether there were any."""
    flags = options.flags
    found = False
    offset = 0
    for number, raw in enumerate(lines, 1):
        ctx.check()
        line = raw.rstrip(b"\r\n")
        matched = pattern.search(line) is not None
        if matched != ("v" in flags):
            found = True
            if "m" in flags:
                ctx.out(f"{name}\n")
                return True
            head = f"{prefix}:" if prefix else ""
            if "n" in flags:
                head += f"{number}:"
            if "o" in flags:
                head += f"{offset}:"
            ctx.stdout.write(head.encode("cp437", "replace") + line + b"\r\n")
        offset += len(raw)
    return found
