"""Windows paths on the guest's real folders: C:\\ is a folder, other letters are mounts.

Names are looked up without regard to case, as NTFS and FAT do: an exact match first, then a
scan of the folder.
"""

import errno
import os
import re

DEVICES = {"nul", "con", "prn", "aux", "conin$", "conout$"}

#: Characters that a Windows file name cannot have.
BAD_CHARACTERS = set('<>"|?*')


def is_device(name):
    """Whether a path names a DOS device such as NUL."""
    return name.rsplit("\\", 1)[-1].split(".", 1)[0].rstrip(" :").lower() in DEVICES


def absolute(name, cwd):
    """A full, normalised Windows path: ``C:\\a\\b``, no trailing backslash but for a root.

    Args:
        name: absolute, drive-relative, rooted or relative; ``/`` counts as ``\\``.
        cwd: mapping of upper-case drive letters to their current folders, with ``""`` naming
            the current drive's letter.
    """
    name = name.replace("/", "\\")
    if len(name) >= 2 and name[1] == ":":
        drive, rest = name[0].upper(), name[2:]
    else:
        drive, rest = cwd[""], name
    if not rest.startswith("\\"):
        rest = cwd.get(drive, drive + ":\\")[2:] + "\\" + rest
    parts = []
    for part in rest.split("\\"):
        # Windows drops trailing dots and spaces of a name.
        if part == "..":
            if parts:
                parts.pop()
        elif part.rstrip(". "):
            parts.append(part.rstrip(". "))
    return drive + ":\\" + "\\".join(parts)


def lookup(folder, parts):
    """The real path of ``parts`` under ``folder``, whatever their case.

    A part that does not exist is kept as given, so the result can be created.
    """
    path = folder
    for part in parts:
        exact = os.path.join(path, part)
        if not os.path.lexists(exact):
            low = part.lower()
            try:
                names = os.listdir(path)
            except OSError:
                names = ()
            for name in names:
                if name.lower() == low:
                    exact = os.path.join(path, name)
                    break
        path = exact
    return path


def matcher(pattern):
    """A function telling whether a name matches a DOS wildcard pattern, whatever its case.

    ``*.*`` matches every name, as it does in cmd.exe.
    """
    if pattern in ("*", "*.*"):
        return lambda name: True
    text = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    # "name.*" also matches a name with no extension.
    if pattern.endswith(".*"):
        text = text[: -len(r"\..*")] + r"(\..*)?"
    return re.compile(text + r"\Z", re.IGNORECASE).match


class Files:
    """The guest's file name space.

    Args:
        c_root: real folder that is C:\\.
        letters: object whose ``folder(letter)`` gives the real folder of another drive or
            ``None``.
    """

    def __init__(self, c_root, letters):
        self.c_root = c_root
        self._letters = letters

    def root(self, drive):
        """The real folder of a drive letter.

        Raises:
            FileNotFoundError: no such drive (``errno.ENODEV``).
        """
        folder = self.c_root if drive == "C" else self._letters.folder(drive)
        if folder is None:
            raise FileNotFoundError(errno.ENODEV, "no such drive", drive + ":")
        return folder

    def real(self, name, cwd):
        """The real path of a Windows path; see ``absolute``.

        Raises:
            FileNotFoundError: its drive does not exist.
        """
        full = absolute(name, cwd)
        return lookup(self.root(full[0]), [part for part in full[3:].split("\\") if part])
