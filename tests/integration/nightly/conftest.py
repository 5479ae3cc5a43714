"""Nights on a PostgreSQL server that the tests start, and on workers that they kill."""

from __future__ import annotations

import sys
from pathlib import Path

# What they have in common with the tests on SQLite.
sys.path.append(str(Path(__file__).parents[2] / "unit" / "nightly"))
