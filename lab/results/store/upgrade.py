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


def head() -> str:
    """This lab's version of the schema."""
    return str(ScriptDirectory(str(MIGRATIONS)).get_current_head())


def is_current(connection: Connection, name: str) -> bool:
    """Whether the schema is this lab's.

    Args:
        connection: to the database.
        name: of the database, for messages.

    Raises:
        UsageError: a newer lab made it, or something else.
    """
    scripts = ScriptDirectory(str(MIGRATIONS))
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
            f"{name}: its schema {version} is newer than this pvlab's ({head()})",
            hint="use the pvlab that wrote it, or a later one",
        )
    return version == head()


def upgrade(connection: Connection, name: str) -> None:
    """Bring the schema up to date, within the transaction that is open.

    Raises:
        UsageError: as ``is_current``.
    """
    if not is_current(connection, name):
        command.upgrade(config(connection), "head")


def _version(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def config(connection: Connection) -> Config:
    """Alembic's settings, which are in no file.

    Args:
        connection: to the database.
    """
    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    settings.attributes["connection"] = connection
    return settings
