"""cmd.exe started from a command line: ``cmd /c "..."``.

Quote rule from ``cmd /?`` of Server 2003: if the text after /C starts with a quote, the first
and the last quote are dropped, unless there are exactly two of them around a program's name.
"""

from standin.builtins import exists
from standin.cmd import Interpreter


def run(ctx):
    """Run one line in a child interpreter; without ``/c``, the lines of standard input."""
    line = ctx.line.lstrip()
    while line.startswith("/"):
        switch = line[1:2].lower()
        line = line[2:].lstrip() if switch != "v" and switch != "e" else line[5:].lstrip()
        if switch in ("c", "k"):
            break
    else:
        line = None if not line.strip() else line
    child = Interpreter(
        ctx.system, ctx.session.copy(), ctx.process, ctx.stdin, ctx.stdout, ctx.stderr
    )
    if line is None:
        code = 0
        for text in ctx.read_all().decode("cp437").splitlines():
            code = child.run(text)
        return code
    return child.run(_strip_quotes(child, line))


def _strip_quotes(interpreter, line):
    if not line.startswith('"'):
        return line
    if line.count('"') == 2 and not any(char in "&<>()@^|" for char in line):
        name = line[1 : line.rindex('"')]
        if " " in name and (exists(interpreter, name) or exists(interpreter, name + ".exe")):
            return line
    last = line.rindex('"')
    return line[1:last] + line[last + 1 :] if last else line[1:]
