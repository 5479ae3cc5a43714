"""Write the migration that brings the schema to what the models say.

``python -m lab.results.store.revise MESSAGE`` after a model has changed; what it writes is a
draft, to be read, tidied with ``ruff format`` and committed.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from alembic import command

from lab.core.errors import UsageError
from lab.results.store import upgrade
from lab.results.store.engine import open_store


def revise(message: str) -> Path:
    """Write a migration.

    Args:
        message: what it does, in a few words.

    Returns:
        Its file.

    Raises:
        UsageError: the message has no words.
    """
    words = re.findall(r"[a-z0-9]+", message.lower())
    if not words:
        raise UsageError("what does the migration do?", hint="say it in a few words")
    versions = upgrade.MIGRATIONS / "versions"
    name = f"r{len(list(versions.glob('r[0-9]*.py'))) + 1:04}"
    with (
        tempfile.TemporaryDirectory(prefix="pvlab-") as scratch,
        # The schema so far, made by the migrations so far.
        open_store(Path(scratch) / "results.db") as store,
        store.engine.begin() as connection,
    ):
        command.revision(upgrade.config(connection), message, autogenerate=True, rev_id=name)
    return next(versions.glob(f"{name}_*.py"))


if __name__ == "__main__":
    print(revise(" ".join(sys.argv[1:])))
