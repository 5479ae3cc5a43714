"""The schema's version, and how it is brought up to date."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from lab.core.errors import UsageError

MIGRATIONS = Path(__file__).parent / "migrations"

VERSION_TABLE = "pvlab_schema"


def is_current(connection: Connection, name: str) -> bool:
    """Whether the schema is this lab's.

    Args:
        connection: to the database.
        name: of the database, for messages.

    Raises:
        UsageError: a newer lab made it, or something else.
    """
    scripts = ScriptDirectory.from_config(_config(connection))
    version = _version(connection)
    if version is None:
        if tables := inspect(connection).get_table_names():
            raise UsageError(
                f"{name}: holds other tables, such as {sorted(tables)[0]}",
                hint="the store needs a database of its own",
            )
        return False
    if version not in {script.revision for script in scripts.walk_revisions()}:
        raise UsageError(
            f"{name}: its schema {version} is newer than this pvlab's "
            f"({scripts.get_current_head()})",
            hint="use the pvlab that wrote it, or a later one",
        )
    return version == scripts.get_current_head()


def upgrade(connection: Connection, name: str) -> None:
    """Bring the schema up to date, within the transaction that is open.

    Raises:
        UsageError: as ``is_current``.
    """
    if not is_current(connection, name):
        command.upgrade(_config(connection), "head")


def _version(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
