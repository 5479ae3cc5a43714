"""The built-in commands of cmd.exe that the lab uses.

Formats and texts: Server 2003 command-line reference (A-Z list) and cmd.exe 5.2.3790.
Each command is ``function(interpreter, ctx) -> exit code``.
"""

import os
import shutil
import stat
import threading
import time
from contextlib import suppress

from standin import PRODUCT, VERSION
from standin.console import Null, TerminatedError, encode, split_arguments
from standin.errors import win32_text
from standin.paths import BAD_CHARACTERS, absolute, is_device, lookup, matcher

SYNTAX = "The syntax of the command is incorrect.\n"
COPY_CHUNK = 1 << 18


def find(name, rest):
    """The built-in that a command's first word means, and its raw arguments.

    ``echo.``, ``cd..`` and ``cd\\`` need no space after the name.

    Returns:
        (function or ``None``, argument text).
    """
    low = name.lower()
    if low in _COMMANDS:
        return _COMMANDS[low], rest
    for index, char in enumerate(low):
        if char in ".\\:+[]" and low[:index] in _GLUED:
            return _COMMANDS[low[:index]], name[index:] + rest
    return None, rest


def exists(interpreter, name):
    """Whether ``if exist`` finds a name; wildcards and devices count."""
    name = name.rstrip()
    folder, _, leaf = name.replace("/", "\\").rpartition("\\")
    try:
        if is_device(leaf) and leaf:
            # X:\folder\nul exists when the folder does.
            return not folder or exists(interpreter, folder + "\\")
        if "*" in leaf or "?" in leaf:
            return bool(_glob(interpreter, name)[1])
        return os.path.exists(interpreter.system.files.real(name, interpreter.session.cwd))
    except OSError:
        return False


def change_drive(interpreter, letter, streams):
    """``X:`` makes a drive current."""
    try:
        interpreter.system.files.root(letter)
    except OSError:
        streams[2].write(encode("The system cannot find the drive specified.\n"))
        interpreter.session.errorlevel = 1
        return 1
    interpreter.session.cwd[""] = letter
    return 0


def _fail(ctx, text, code=1):
    """Print an error line and set the errorlevel."""
    ctx.err(text if text.endswith("\n") else text + "\n")
    ctx.session.errorlevel = code
    return code


def _switches(ctx):
    """Split arguments into lower-case switches and names; ``a/b`` is a name and a switch."""
    switches, names = [], []
    quoted = False
    word = []
    line = ctx.line + " "
    for char in line:
        if char == '"':
            quoted = not quoted
            continue
        if not quoted and (char in " \t,;=" or char == "/"):
            if word:
                text = "".join(word)
                (switches if text[0] == "/" else names).append(text)
            word = ["/"] if char == "/" else []
            continue
        word.append(char)
    return [text.lower() for text in switches], names


def _glob(interpreter, name):
    """The real folder that a name with a pattern is in, and the matching entries, sorted."""
    full = absolute(name, interpreter.session.cwd)
    files = interpreter.system.files
    parts = [part for part in full[3:].split("\\") if part]
    folder = lookup(files.root(full[0]), parts[:-1])
    matches = matcher(parts[-1] if parts else "*")
    return folder, sorted((leaf for leaf in os.listdir(folder) if matches(leaf)), key=str.lower)


def _expand(interpreter, name):
    """The real paths a name means: itself, or the files that match its pattern."""
    if "*" not in name and "?" not in name:
        return [interpreter.system.files.real(name, interpreter.session.cwd)]
    folder, leaves = _glob(interpreter, name)
    paths = [os.path.join(folder, leaf) for leaf in leaves]
    return [path for path in paths if not os.path.isdir(path)]


def echo(interpreter, ctx):
    """``echo text``, ``echo on|off``, ``echo.``."""
    if not ctx.line.strip():
        ctx.out(f"ECHO is {'on' if ctx.session.echo else 'off'}.\n")
        return 0
    word = ctx.line.strip().lower()
    if word in ("on", "off"):
        ctx.session.echo = word == "on"
        return 0
    ctx.out(ctx.line[1:] + "\n")
    return 0


def type_(interpreter, ctx):
    """``type file...``."""
    _, names = _switches(ctx)
    if not names:
        return _fail(ctx, SYNTAX)
    code = 0
    several = len(names) > 1 or any(char in names[0] for char in "*?")
    for name in names:
        try:
            paths = _expand(interpreter, name)
            if not paths:
                raise FileNotFoundError(2, "no match")
            for path in paths:
                if os.path.isdir(path):
                    raise PermissionError(13, "a folder")
                with open(path, "rb") as file:
                    if several:
                        ctx.err(f"\n{os.path.basename(path)}\n\n\n")
                    while data := file.read(COPY_CHUNK):
                        ctx.check()
                        ctx.stdout.write(data)
        except OSError as error:
            ctx.err(win32_text(error) + "\n")
            if several:
                ctx.err(f"Error occurred while processing: {name}.\n")
            code = 1
    ctx.session.errorlevel = code
    return code


def _volume_header(interpreter, ctx, drive):
    label, serial = interpreter.system.letters.label_and_serial(drive)
    if label:
        ctx.out(f" Volume in drive {drive} is {label}\n")
    else:
        ctx.out(f" Volume in drive {drive} has no label.\n")
    ctx.out(f" Volume Serial Number is {serial >> 16:04X}-{serial & 0xFFFF:04X}\n")


def vol(interpreter, ctx):
    """``vol [X:]``."""
    _, names = _switches(ctx)
    drive = names[0][0].upper() if names else ctx.session.cwd[""]
    try:
        interpreter.system.files.root(drive)
    except OSError:
        return _fail(ctx, "The system cannot find the path specified.")
    _volume_header(interpreter, ctx, drive)
    return 0


def dir_(interpreter, ctx):
    """``dir [name] [/b] [/s] [/a[:d|-d]]``."""
    switches, names = _switches(ctx)
    bare = recurse = False
    only = None
    for switch in switches:
        if switch == "/b":
            bare = True
        elif switch == "/s":
            recurse = True
        elif switch.startswith("/a"):
            attributes = switch[2:].lstrip(":")
            only = {"d": True, "-d": False}.get(attributes)
            if attributes and only is None:
                return _fail(ctx, f'Parameter format not correct - "{attributes}".')
        elif switch not in ("/on", "/o:n", "/o", "/-c", "/n", "/tw", "/4"):
            return _fail(ctx, f'Invalid switch - "{switch[1:]}".')
    name = names[0] if names else "."
    session = ctx.session
    full = absolute(name, session.cwd)
    try:
        root = interpreter.system.files.root(full[0])
    except OSError:
        return _fail(ctx, "The system cannot find the path specified.")
    real = interpreter.system.files.real(name, session.cwd)
    pattern = "*"
    if not os.path.isdir(real):
        full, _, pattern = full.rpartition("\\")
        full += "\\" if full.endswith(":") else ""
        real = os.path.dirname(real)
        if not os.path.isdir(real):
            return _fail(
                ctx, "The system cannot find the path specified." if not bare else "File Not Found"
            )
    if not bare:
        _volume_header(interpreter, ctx, full[0])
    totals = [0, 0, 0]
    _list_folder(ctx, real, full, matcher(pattern), bare, recurse, only, totals, root)
    if not totals[0] and not totals[2] and (pattern != "*" or bare):
        if not bare:
            ctx.out(f"\n Directory of {full}\n\n")
        return _fail(ctx, "File Not Found")
    if not bare:
        if recurse:
            ctx.out("\n     Total Files Listed:\n")
            ctx.out(f"{totals[0]:16d} File(s) {totals[1]:14,d} bytes\n")
        usage = os.statvfs(real)
        ctx.out(f"{totals[2]:16d} Dir(s)  {usage.f_bavail * usage.f_frsize:14,d} bytes free\n")
    session.errorlevel = 0
    return 0


def _list_folder(ctx, real, full, matches, bare, recurse, only, totals, root):
    """Print one folder of ``dir`` and, with ``/s``, those in it; adds to ``totals``."""
    entries = []
    folders = []
    if real != root and not bare and only is not False:
        entries += [(".", real), ("..", real)]
    for leaf in sorted(os.listdir(real), key=str.lower):
        path = os.path.join(real, leaf)
        if recurse and os.path.isdir(path):
            folders.append((path, full.rstrip("\\") + "\\" + leaf))
        if matches(leaf):
            entries.append((leaf, path))
    lines = []
    files = size = 0
    for leaf, path in entries:
        ctx.check()
        try:
            info = os.stat(path)
        except OSError:
            continue
        is_folder = stat.S_ISDIR(info.st_mode)
        if only is not None and is_folder != only:
            continue
        if is_folder:
            totals[2] += 1
        else:
            files += 1
            size += info.st_size
        if bare:
            lines.append((full.rstrip("\\") + "\\" + leaf) if recurse else leaf)
            continue
        when = time.strftime("%m/%d/%Y  %I:%M %p", time.localtime(info.st_mtime))
        column = "    <DIR>          " if is_folder else f"{info.st_size:18,d} "
        lines.append(f"{when}{column}{leaf}")
    totals[0] += files
    totals[1] += size
    if lines:
        text = "\n".join(lines) + "\n"
        if bare:
            ctx.out(text)
        else:
            ctx.out(f"\n Directory of {full}\n\n{text}")
            ctx.out(f"{files:16d} File(s) {size:14,d} bytes\n")
    for path, name in folders:
        _list_folder(ctx, path, name, matches, bare, recurse, only, totals, root)


def _copy_data(ctx, source, output):
    while data := source.read(COPY_CHUNK):
        ctx.check()
        output.write(data)


def copy(interpreter, ctx):
    """``copy [/y] [/b] source[+source...] [target]``."""
    switches, names = _switches(ctx)
    for switch in switches:
        if switch not in ("/y", "/-y", "/b", "/a", "/v", "/n", "/d", "/z"):
            return _fail(ctx, SYNTAX)
    # "a + b" and "a+b" are one source.
    sources = []
    joined = False
    for name in names:
        pieces = name.split("+")
        if sources and (joined or name.startswith("+")):
            sources[-1] += [piece for piece in pieces if piece]
        else:
            sources.append([piece for piece in pieces if piece])
        joined = name.endswith("+")
    if not sources or len(sources) > 2:
        return _fail(ctx, SYNTAX)
    target = sources[1][0] if len(sources) == 2 else "."
    parts = sources[0]
    try:
        target_path = None if is_device(target) else ctx.path(target)
        inputs = []
        for part in parts:
            found = [None] if is_device(part) else _expand(interpreter, part)
            if len(found) == 1 and found[0] and os.path.isdir(found[0]):
                found = _expand(interpreter, part + "\\*")
            if not found or (found[0] and not os.path.exists(found[0])):
                shown = absolute(part, ctx.session.cwd) if "\\" in part or ":" in part else part
                ctx.err(
                    "The system cannot find the file specified.\n"
                    if not found or "*" not in part
                    else f"{shown}\nThe system cannot find the file specified.\n"
                )
                ctx.out("        0 file(s) copied.\n")
                ctx.session.errorlevel = 1
                return 1
            inputs += found
    except OSError as error:
        return _fail(ctx, _path_text(error))
    into_folder = target_path is not None and os.path.isdir(target_path)
    count = 0
    try:
        if len(parts) > 1:
            joined_path = (
                os.path.join(target_path, os.path.basename(inputs[0]))
                if into_folder
                else target_path
            )
            data = []
            for path in inputs:
                with open(path or os.devnull, "rb") as source:
                    data.append(source.read())
            if joined_path:
                with open(joined_path, "wb") as output:
                    output.write(b"".join(data))
            count = 1
        else:
            for path in inputs:
                if len(inputs) > 1 or "*" in parts[0]:
                    ctx.out(os.path.basename(path) + "\n")
                leaf = os.path.basename(path or "nul")
                to = os.path.join(target_path, leaf) if into_folder else target_path
                if to and path and os.path.exists(to) and os.path.samefile(to, path):
                    ctx.err("The file cannot be copied onto itself.\n")
                    continue
                with open(path or os.devnull, "rb") as source:
                    if to is None:
                        _copy_data(ctx, source, Null())
                    else:
                        with open(to, "wb") as output:
                            _copy_data(ctx, source, output)
                        if path:
                            shutil.copystat(path, to)
                count += 1
    except OSError as error:
        ctx.err(_path_text(error) + "\n")
    ctx.out(f"{count:9d} file(s) copied.\n")
    ctx.session.errorlevel = 0 if count else 1
    return ctx.session.errorlevel


def _path_text(error):
    """The text for a failed create: a missing folder is a missing path."""
    import errno

    if error.errno == errno.ENOENT:
        return "The system cannot find the path specified."
    return win32_text(error)


def move(interpreter, ctx):
    """``move [/y] source target``."""
    switches, names = _switches(ctx)
    if any(switch not in ("/y", "/-y") for switch in switches) or len(names) not in (1, 2):
        return _fail(ctx, SYNTAX)
    paths = _expand(interpreter, names[0])
    target = ctx.path(names[1] if len(names) == 2 else ".")
    if not paths or not os.path.lexists(paths[0]):
        return _fail(ctx, "The system cannot find the file specified.")
    if len(paths) > 1 and not os.path.isdir(target):
        return _fail(ctx, "Cannot move multiple files to a single file.")
    for path in paths:
        to = os.path.join(target, os.path.basename(path)) if os.path.isdir(target) else target
        if os.path.isdir(path):
            shutil.move(path, to)
        else:
            try:
                os.replace(path, to)
            except OSError:  # another drive
                shutil.copy2(path, to)
                os.unlink(path)
    ctx.out(f"{len(paths):9d} {'dir' if os.path.isdir(to) else 'file'}(s) moved.\n")
    ctx.session.errorlevel = 0
    return 0


def ren(interpreter, ctx):
    """``ren old new``."""
    _, names = _switches(ctx)
    if len(names) != 2 or any(char in names[1] for char in "\\:"):
        return _fail(ctx, SYNTAX)
    path = ctx.path(names[0])
    to = os.path.join(os.path.dirname(path), names[1])
    if not os.path.lexists(path):
        return _fail(ctx, "The system cannot find the file specified.")
    if os.path.lexists(to):
        return _fail(ctx, "A duplicate file name exists, or the file\ncannot be found.")
    os.rename(path, to)
    return 0


def del_(interpreter, ctx):
    """``del [/f] [/q] [/s] name...``."""
    switches, names = _switches(ctx)
    for switch in switches:
        if switch not in ("/f", "/q", "/s", "/p") and not switch.startswith("/a"):
            return _fail(ctx, f'Invalid switch - "{switch[1:]}".')
    if not names:
        return _fail(ctx, SYNTAX)
    for name in names:
        full = absolute(name, ctx.session.cwd)
        try:
            if os.path.isdir(ctx.path(name)):
                name = name.rstrip("\\") + "\\*"
            paths = [path for path in _expand(interpreter, name) if os.path.lexists(path)]
            if "/s" in switches:
                folder, _ = _glob(interpreter, name)
                matches = matcher(absolute(name, ctx.session.cwd).rsplit("\\", 1)[-1])
                paths = [
                    os.path.join(base, leaf)
                    for base, _, leaves in os.walk(folder)
                    for leaf in leaves
                    if matches(leaf)
                ]
        except OSError as error:
            return _fail(ctx, _path_text(error))
        if not paths:
            # cmd.exe says so and still succeeds.
            ctx.err(f"Could Not Find {full}\n")
        for path in paths:
            try:
                os.unlink(path)
            except OSError as error:
                ctx.err(f"{full}\n{win32_text(error)}\n")
    return 0


def md(interpreter, ctx):
    """``md folder...``, parents included."""
    _, names = _switches(ctx)
    if not names:
        return _fail(ctx, SYNTAX)
    code = 0
    for name in names:
        try:
            if BAD_CHARACTERS & set(name):
                raise OSError(22, "bad name")
            path = ctx.path(name)
            if os.path.lexists(path):
                ctx.err(f"A subdirectory or file {name} already exists.\n")
                code = 1
                continue
            os.makedirs(path)
        except OSError as error:
            ctx.err(_path_text(error) + "\n")
            code = 1
    ctx.session.errorlevel = code
    return code


def rd(interpreter, ctx):
    """``rd [/s] [/q] folder...``."""
    switches, names = _switches(ctx)
    for switch in switches:
        if switch not in ("/s", "/q"):
            return _fail(ctx, f'Invalid switch - "{switch[1:]}".')
    if not names:
        return _fail(ctx, SYNTAX)
    for name in names:
        path = ctx.path(name)
        if not os.path.lexists(path):
            return _fail(ctx, "The system cannot find the file specified.", 2)
        if not os.path.isdir(path):
            return _fail(ctx, "The directory name is invalid.", 267)
        if "/s" in switches:
            shutil.rmtree(path)
            continue
        try:
            os.rmdir(path)
        except OSError:
            return _fail(ctx, "The directory is not empty.", 145)
    return 0


def cd(interpreter, ctx):
    """``cd [/d] [folder]``; alone it prints the current folder."""
    line = ctx.line.strip().rstrip(",;=")
    other_drive = line.lower().startswith("/d")
    if other_drive:
        line = line[2:].strip()
    name = line.replace('"', "")
    session = ctx.session
    if not name:
        ctx.out(session.folder + "\n")
        return 0
    if len(name) == 2 and name[1] == ":" and not other_drive:
        ctx.out(session.cwd.get(name[0].upper(), name[0].upper() + ":\\") + "\n")
        return 0
    full = absolute(name, session.cwd)
    try:
        path = ctx.path(name)
    except OSError:
        return _fail(ctx, "The system cannot find the drive specified.")
    if not os.path.isdir(path):
        text = (
            "The directory name is invalid."
            if os.path.exists(path)
            else ("The system cannot find the path specified.")
        )
        return _fail(ctx, text)
    session.cwd[full[0]] = _proper_case(interpreter, full)
    if other_drive:
        session.cwd[""] = full[0]
    return 0


def _proper_case(interpreter, full):
    """A Windows path spelt as its folders are on disk."""
    root = interpreter.system.files.root(full[0])
    real = lookup(root, [part for part in full[3:].split("\\") if part])
    parts = os.path.relpath(real, root)
    return full[:3] + ("" if parts == "." else parts.replace("/", "\\"))


def set_(interpreter, ctx):
    """``set``, ``set prefix``, ``set name=value``."""
    text = ctx.line.strip(" \t")
    if text.startswith('"') and text.count('"') > 1:
        text = text[1 : text.rindex('"')]
    elif ctx.line[:1] in " \t":
        text = ctx.line.lstrip(" \t")  # trailing spaces belong to the value
    env = ctx.session.env
    name, equals, value = text.partition("=")
    if not equals:
        prefix = text.strip().upper()
        shown = [env[key] for key in sorted(env) if key.startswith(prefix)]
        if prefix and not shown:
            return _fail(ctx, f"Environment variable {text.strip()} not defined")
        for variable, content in shown:
            ctx.out(f"{variable}={content}\n")
        return 0
    if not name:
        return _fail(ctx, SYNTAX)
    if value:
        env[name.upper()] = (env.get(name.upper(), (name, ""))[0], value)
    else:
        env.pop(name.upper(), None)
    return 0


def ver(interpreter, ctx):
    """``ver``: names the stand-in, not the system it stands in for."""
    ctx.out(f"\n{PRODUCT} [Version {VERSION}]\n")
    return 0


def exit_(interpreter, ctx):
    """``exit [/b] [code]``."""
    from standin.cmd import ExitShellError

    words = ctx.line.split()
    if words and words[0].lower() == "/b":
        words = words[1:]
    try:
        code = int(words[0]) if words else ctx.session.errorlevel
    except ValueError:
        code = 0
    raise ExitShellError(code)


def start(interpreter, ctx):
    """``start ["title"] [/b] [/min] [/wait] program [arguments]``: run detached.

    The program gets NUL for its streams and outlives the shell that started it, which is
    what the lab needs of DbgView.
    """
    line = ctx.line.strip()
    if line.startswith('"'):
        line = line[line.find('"', 1) + 1 :].strip() if '"' in line[1:] else ""
    wait = False
    while line.startswith("/"):
        switch, _, rest = line.partition(" ")
        low = switch.lower()
        if low not in ("/b", "/min", "/max", "/wait", "/w", "/low", "/high", "/normal", "/i"):
            return _fail(ctx, f'Invalid switch - "{switch}".')
        wait = wait or low in ("/wait", "/w")
        line = rest.strip()
    if not line:
        return 0
    from standin.cmd import Interpreter, split_name

    name, rest = split_name(line)
    name = name.replace('"', "")
    child = Interpreter(ctx.system, ctx.session.copy(), ctx.process, *[Null()] * 3)
    if child.find_program(name) is None:
        ctx.err(f"The system cannot find the file {name}.\n")
        ctx.session.errorlevel = NOT_STARTED
        return NOT_STARTED
    if wait:
        return child.program(name, rest, dict(child.streams))
    # Its own process entry: ending the command that said "start" leaves it running.
    child.process = ctx.system.processes.detached()

    def run():
        with suppress(TerminatedError):
            child.program(name, rest, dict(child.streams))

    threading.Thread(target=run, name=name, daemon=True).start()
    return 0


#: Exit code of ``start`` for a program that is not there, as cmd.exe 5.2 gives it.
NOT_STARTED = 9059


def call(interpreter, ctx):
    """``call command``."""
    return interpreter._command(ctx.line, {0: ctx.stdin, 1: ctx.stdout, 2: ctx.stderr})


def date_time(interpreter, ctx):
    """``date /t``, ``date mm-dd-yyyy``, ``time /t``, ``time hh:mm:ss``."""
    is_date = ctx.name.lower() == "date"
    if split_arguments(ctx.line.lower()) == ["/t"]:
        ctx.out(time.strftime("%a %m/%d/%Y \n" if is_date else "%I:%M %p\n"))
        return 0
    now = time.localtime()
    today, hour = time.strftime("%m-%d-%Y", now), time.strftime("%H:%M:%S", now)
    given = ctx.line.strip()
    try:
        if is_date:
            today = given.replace("/", "-")
        else:
            hour = given if given.count(":") == 2 else f"{given}:00"
        moment = time.mktime(time.strptime(f"{today} {hour}", "%m-%d-%Y %H:%M:%S"))
    except (ValueError, OverflowError):
        return _fail(ctx, f"The system cannot accept the {'date' if is_date else 'time'} entered.")
    try:
        interpreter.system.host.set_clock(moment)
    except OSError:
        return _fail(ctx, "A required privilege is not held by the client.")
    return 0


def nothing(interpreter, ctx):
    """Commands with no effect here: ``rem``, ``title``, ``cls``, ``color``."""
    return 0


_COMMANDS = {
    "call": call,
    "cd": cd,
    "chdir": cd,
    "cls": nothing,
    "color": nothing,
    "copy": copy,
    "date": date_time,
    "del": del_,
    "dir": dir_,
    "echo": echo,
    "erase": del_,
    "exit": exit_,
    "md": md,
    "mkdir": md,
    "move": move,
    "rd": rd,
    "rem": nothing,
    "ren": ren,
    "rename": ren,
    "rmdir": rd,
    "set": set_,
    "start": start,
    "time": date_time,
    "title": nothing,
    "type": type_,
    "ver": ver,
    "vol": vol,
}

_GLUED = {"echo", "cd", "chdir", "dir", "md", "rd", "del", "type"}
