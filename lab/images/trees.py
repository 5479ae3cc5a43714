"""Removing whole trees, even those that another user id of ours filled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import LabBroken


def remove_tree(path: Path) -> None:
    """Remove ``path`` and all below it; it may be missing.

    Raises:
        LabBroken: some of it cannot be removed.
    """

    def probe() -> None:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if path.exists():
                raise NotYet("entries vanish while they are removed") from None
        except PermissionError as error:
            if not _remove_foreign(path):
                raise LabBroken(f"cannot remove {path}: {error.strerror}") from error
        except OSError as error:
            # A program that is being killed may write its last file right now.
            raise NotYet(error.strerror or str(error)) from None

    if path.exists():
        wait_for(f"the removal of {path}", probe, Deadline(10))


def _remove_foreign(path: Path) -> bool:
    """Remove a tree with files of this user's subordinate ids; whether that worked.

    Only someone in such a user namespace may empty their folders: mmdebstrap's helper is
    (mmdebstrap(1), UNSHARE-HELPER). Folders of our own it may not touch, so its own exit
    status says nothing.
    """
    try:
        subprocess.run(
            ["mmdebstrap", "--unshare-helper", "find", path, "-mindepth", "1", "-delete"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        shutil.rmtree(path)
    except OSError:
        return False
    return True
