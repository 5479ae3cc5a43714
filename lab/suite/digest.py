"""The identity of a suite: what its files say."""

from __future__ import annotations

import hashlib
from pathlib import Path


def suite_digest(*folders: Path) -> str:
    """SHA-256 over the Python files of a suite, names included.

    Args:
        folders: those that it consists of, usually one.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()
