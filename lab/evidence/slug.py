"""Folder names for tests."""

from __future__ import annotations

import hashlib
import re

# With the hash, a third of the 255 bytes that Linux file systems allow for a name.
READABLE = 72


def slug(test_id: str) -> str:
    """A folder name for a test: readable, unique, the same in every run.

    Args:
        test_id: pytest's node id, as ``path/test_x.py::Class::test_y[param]``.

    Returns:
        The last part of the id in safe characters, then 8 hex digits of the whole id's SHA-256:
        different ids differ even where only case or odd characters tell them apart.
    """
    digest = hashlib.sha256(test_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    last = test_id.partition("[")
    name = last[0].rpartition("::")[2] + last[1] + last[2]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:READABLE].rstrip("-.")
    return f"{readable or 'test'}-{digest}"
