"""What Alembic runs: migrations on the connection, and in the transaction, that it is given."""

from __future__ import annotations

from alembic import context

from lab.results.store.models import Base
from lab.results.store.upgrade import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    # True of SQLite too, once transactions are begun as lab.results.store.engine does.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
