"""reg.exe: query, add and delete.

Output: Server 2003's version 3.0 ("! REG.EXE VERSION 3.0", tab-separated values); texts from
its "Reg" reference page.
"""

from standin import hive as registry

SUCCESS = "\nThe operation completed successfully\n"
BAD = "\nError:  The parameter is incorrect\n"
MISSING = "\nError:  The system was unable to find the specified registry key or value\n"
TYPES = ("REG_SZ", "REG_EXPAND_SZ", "REG_MULTI_SZ", "REG_DWORD", "REG_BINARY", "REG_NONE")


def run(ctx):
    """``reg query|add|delete KEY ...``."""
    args = ctx.args
    verbs = {"query": _query, "add": _add, "delete": _delete}
    verb = verbs.get(args[0].lower()) if len(args) > 1 else None
    if verb is None:
        ctx.err(BAD)
        return 1
    try:
        parts = registry.split(args[1])
        options = _options(args[2:])
    except ValueError:
        ctx.err(BAD)
        return 1
    # Shown as typed, with the root's full name.
    shown = "\\".join([parts[0], *[part for part in args[1].split("\\")[1:] if part]])
    return verb(ctx, args[1], shown, options)


def _options(words):
    """Switches with their values, ``True`` for those without.

    Raises:
        ValueError: an unknown switch, or a value is missing.
    """
    options = {}
    index = 0
    while index < len(words):
        word = words[index].lower()
        if (
            word in ("/v", "/t", "/d", "/s")
            and index + 1 < len(words)
            and not (word == "/s" and words[index + 1].startswith("/"))
        ):
            index += 1
            options[word] = words[index]
        elif word in ("/f", "/ve", "/va", "/s"):
            options[word] = True
        else:
            raise ValueError(word)
        index += 1
    return options


def _text(kind, data):
    """A value's data as reg prints it."""
    if kind == "REG_DWORD":
        return f"0x{data:x}"
    if kind == "REG_MULTI_SZ":
        return "\\0".join(data) + "\\0\\0" if data else ""
    if kind == "REG_BINARY":
        return data.upper()
    return data


def _line(name, kind, data):
    return f"    {name or '<NO NAME>'}\t{kind}\t{_text(kind, data)}\n"


def _query(ctx, key, shown, options):
    hive = ctx.system.hive
    if not hive.exists(key):
        ctx.err(MISSING)
        return 1
    values = hive.values(key)
    if "/v" in options or "/ve" in options:
        name = "" if "/ve" in options else options["/v"]
        found = [item for item in values.items() if item[0].lower() == name.lower()]
        if not found:
            ctx.err(MISSING)
            return 1
        ctx.out(f"\n! REG.EXE VERSION 3.0\n\n{shown}\n{_line(found[0][0], *found[0][1])}\n")
        return 0
    ctx.out("\n! REG.EXE VERSION 3.0\n")
    _print_key(ctx, key, shown, "/s" in options)
    return 0


def _print_key(ctx, key, shown, recurse):
    hive = ctx.system.hive
    lines = [f"\n{shown}\n"]
    lines += [_line(name, kind, data) for name, (kind, data) in sorted(hive.values(key).items())]
    children = hive.keys(key)
    if not recurse:
        ctx.out("".join(lines) + "\n" + "".join(f"{shown}\\{child}\n" for child in children))
        return
    ctx.out("".join(lines))
    for child in children:
        _print_key(ctx, f"{key}\\{child}", f"{shown}\\{child}", True)


def _data(kind, text):
    """A value's data from its text.

    Raises:
        ValueError: the text does not fit the type.
    """
    if kind == "REG_DWORD":
        number = int(text or "0", 0)
        if not 0 <= number < 1 << 32:
            raise ValueError(text)
        return number
    if kind == "REG_BINARY":
        return bytes.fromhex(text).hex()
    if kind == "REG_MULTI_SZ":
        return [part for part in text.split("\\0") if part]
    return text


def _add(ctx, key, shown, options):
    kind = str(options.get("/t", "REG_SZ")).upper()
    if kind not in TYPES or "/s" in options or "/va" in options:
        ctx.err(BAD)
        return 1
    if "/v" not in options and "/ve" not in options:
        ctx.system.hive.create(key)
        ctx.out(SUCCESS)
        return 0
    name = options.get("/v", "")
    if "/f" not in options and name.lower() in (
        item.lower() for item in ctx.system.hive.values(key)
    ):
        ctx.out(f"Value {name} exists, overwrite(Y/N)? ")
        if not ctx.stdin.read().strip().lower().startswith(b"y"):
            ctx.out("\nThe operation was cancelled\n")
            return 0
    try:
        data = _data(kind, str(options.get("/d", "")))
    except ValueError:
        ctx.err(BAD)
        return 1
    ctx.system.hive.set(key, name, kind, data)
    ctx.out(SUCCESS)
    return 0


def _delete(ctx, key, shown, options):
    hive = ctx.system.hive
    if "/f" not in options:
        ctx.out(f"Permanently delete the registry key {shown} (Y/N)? ")
        if not ctx.stdin.read().strip().lower().startswith(b"y"):
            ctx.out("\nThe operation was cancelled\n")
            return 0
    if "/va" in options:
        done = hive.exists(key)
        for name in hive.values(key):
            hive.delete_value(key, name)
    elif "/v" in options or "/ve" in options:
        done = hive.delete_value(key, options.get("/v", ""))
    else:
        done = hive.delete_key(key)
    if not done:
        ctx.err(MISSING)
        return 1
    ctx.out(SUCCESS)
    return 0
