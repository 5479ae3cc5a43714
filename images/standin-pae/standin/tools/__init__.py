"""The programs of the stand-in: one module each, run inside the server process.

A tool module has ``run(ctx)``, which gets a ``standin.console.Context`` and returns the
exit code. Tools are found by name through ``find``; the table below is the whole set.
"""

_MODULES = {
    "attrib": "attrib",
    "certutil": "certutil",
    "chkdsk": "chkdsk",
    "cmd": "cmdexe",
    "dbgview": "dbgview",
    "devcon": "devcon",
    "diskio": "diskio",
    "diskpart": "diskpart",
    "fc": "fc",
    "findstr": "findstr",
    "format": "format",
    "hostname": "hostname",
    "mountvol": "mountvol",
    "ping": "ping",
    "reg": "reg",
    "rundll32": "rundll32",
    "shutdown": "shutdown",
    "systeminfo": "systeminfo",
    "taskkill": "taskkill",
    "tasklist": "tasklist",
    "wmic": "wmic",
}

#: Names whose program file ends in something else than ``.exe`` on Server 2003.
_SUFFIXES = {"format": ".com"}

NAMES = tuple(_MODULES)


def image_name(name):
    """The program file name that a process list shows for a tool: ``findstr.exe``."""
    return name + _SUFFIXES.get(name, ".exe")


def find(name):
    """The ``run`` function of a tool, or ``None``; ``name`` may end in .exe or .com."""
    name = name.lower()
    for suffix in (".exe", ".com"):
        if name.endswith(suffix):
            name = name[: -len(suffix)]
            break
    module = _MODULES.get(name)
    if module is None:
        return None
    full = "standin.tools." + module
    __import__(full)
    return __import__("sys").modules[full].run


def preload():
    """Import every tool now, so that no command pays for an import later."""
    for name in NAMES:
        find(name)
