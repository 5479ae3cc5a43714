"""attrib.exe: switches of Server 2003's command-line reference; nothing here has attributes.

Files of the stand-in are neither hidden nor read-only, so that setting either changes nothing:
the program only says whether there is such a file.
"""

import os

_SWITCHES = ("r", "a", "s", "h")


def run(ctx):
    """``attrib [+r|-r] [+a|-a] [+s|-s] [+h|-h] file``."""
    names = []
    for word in ctx.args:
        if word[:1] in "+-" and len(word) > 1:
            if word[1:].lower() not in _SWITCHES:
                ctx.out(f"Parameter format not correct - {word}\n")
                return 1
        elif word[:1] != "/":
            names.append(word)
    code = 0
    for name in names:
        if not os.path.exists(ctx.path(name)):
            ctx.out(f"File not found - {name}\n")
            code = 1
        elif len(names) == len(ctx.args):
            ctx.out(f"A          {name}\n")
    return code
