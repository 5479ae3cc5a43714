"""What Alembic runs: migrations on the connection, and in the transaction, that it is given."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Enum

from lab.results.store.models import Base
from lab.results.store.types import Plain, Utc
from lab.results.store.upgrade import VERSION_TABLE


def plain_types(kind: str, item: Any, _: AutogenContext) -> str | Literal[False]:
    """Types of the database rather than of the models, which go on changing."""
    if kind == "type" and isinstance(item, Plain):
        return "sa.Text()"
    if kind == "type" and isinstance(item, Utc):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Enum):
        return f"sa.String({item.length})"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # True of SQLite too, once transactions are begun as lab.results.store.engine does.
    transactional_ddl=True,
    render_as_batch=True,
    render_item=plain_types,
)
with context.begin_transaction():
    context.run_migrations()
