"""JSON Schemas of the run's files and of the catalogue, for those who read them otherwise.

``python -m lab.gate.schemas`` writes them anew after a model has changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from lab.core.atomic import atomic_write
from lab.evidence.manifest import Manifest
from lab.gate.document import GateDocument
from lab.results.record import RunRecord
from lab.suite.catalogue import Catalogue

PACKAGE = Path(__file__).resolve().parents[1]

SCHEMAS: Mapping[Path, type[BaseModel]] = {
    PACKAGE / "results/schema/run.schema.json": RunRecord,
    PACKAGE / "evidence/schema/evidence.schema.json": Manifest,
    PACKAGE / "gate/schema/gate.schema.json": GateDocument,
    PACKAGE / "suite/schema/catalogue.schema.json": Catalogue,
}


def schema_text(model: type[BaseModel]) -> str:
    """The JSON Schema (draft 2020-12) of a model as the lab writes it."""
    schema = model.model_json_schema(mode="serialization")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2) + "\n"


def write_schemas() -> None:
    """Write every schema beside the model it is of.

    Raises:
        OSError: one cannot be written.
    """
    for path, model in SCHEMAS.items():
        atomic_write(path, schema_text(model).encode())


if __name__ == "__main__":
    write_schemas()
