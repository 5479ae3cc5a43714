"""The exported JSON Schemas are those of the models."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from lab.gate.schemas import SCHEMAS, schema_text


@pytest.mark.parametrize(("path", "model"), SCHEMAS.items(), ids=lambda v: getattr(v, "name", ""))
def test_schema_file_is_current(path: Path, model: type[BaseModel]) -> None:
    current = path.read_text(encoding="utf-8") == schema_text(model)
    assert current, f"{path.name} is out of date: run python -m lab.gate.schemas"
