"""The installation disc with the lab's files on it, in the ``$OEM$`` folder setup looks for.

Setup copies ``$OEM$\\$1`` to the system drive and runs ``$OEM$\\cmdlines.txt`` (Microsoft,
ref.chm, "Distribution folder"). On a CD the folder is in the root, beside I386.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pycdlib

from lab.core.errors import LabBroken

OEM = "$OEM$"
SETUP_ON_DISC = f"{OEM}/$1/PVLAB/SETUP"
"""The folder that becomes ``C:\\pvlab\\setup``."""


def remaster(source: Path, target: Path, files: Mapping[str, bytes | Path]) -> None:
    """Copy a disc, with more files on it; its boot record stays.

    Args:
        source: the ISO.
        target: the new one.
        files: by path on the disc, such as ``$OEM$/CMDLINES.TXT``; content or a file.

    Raises:
        LabBroken: the disc has such a file already, cannot be read, or ``target`` cannot be
            written.
    """
    iso = pycdlib.PyCdlib()
    try:
        iso.open(str(source))
        # Names such as $OEM$ are outside of ISO 9660's own characters, and Windows' discs
        # have them all the same.
        iso.interchange_level = 4
        joliet = iso.has_joliet()
        made: set[PurePosixPath] = set()
        for name, content in files.items():
            path = PurePosixPath("/") / name
            for folder in reversed(path.parents[:-1]):
                if folder not in made:
                    made.add(folder)
                    iso.add_directory(str(folder), joliet_path=str(folder) if joliet else None)
            second = str(path) if joliet else None
            if isinstance(content, Path):
                iso.add_file(str(content), f"{path};1", joliet_path=second)
            else:
                iso.add_fp(io.BytesIO(content), len(content), f"{path};1", joliet_path=second)
        iso.write(str(target))
    except (pycdlib.pycdlibexception.PyCdlibException, OSError) as error:
        target.unlink(missing_ok=True)
        raise LabBroken(
            f"cannot put the lab's files on a copy of {source.name}: {error}"
        ) from error
    finally:
        if iso._initialized:
            iso.close()
