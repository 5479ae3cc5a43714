from __future__ import annotations

from pathlib import Path

import pytest
from kills import killed_and_resumed

from lab.results.store import Store


@pytest.mark.parametrize("seed", [1])
def test_a_night_that_is_killed_goes_on_where_it_was(
    database: str, store: Store, tmp_path: Path, seed: int
) -> None:
    killed_and_resumed(database, store, tmp_path, seed)
