"""The database behind the store: where it is, how it is opened, how it is written to.

SQLite by default, in WAL mode, so that readers and one writer do not wait for each other;
PostgreSQL by URL. Either way a write is one transaction, and two writers never mix: SQLite locks
the file when a write begins, PostgreSQL rows or, where many tables change, the whole store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.orm import Session

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, UsageError
from lab.core.lock import locked
from lab.core.paths import results_dir
from lab.results.store.upgrade import is_current, upgrade

DATABASE = "results.db"
"""The store's file in the results folder."""

VARIABLE = "PVLAB_DB"

PATIENCE_SECONDS = 60.0
"""How long a writer waits for another; a night's import of one run takes far less."""

EXCLUSIVE = 0x7076_6C61
"""Key of PostgreSQL's advisory lock on the whole store: ``pvla`` in ASCII."""

_WRITE = "pvlab_write"


def store_url(db: str | Path | None = None) -> URL:
    """Where the store is.

    Args:
        db: URL, or path of an SQLite file; else ``PVLAB_DB``, else ``results.db`` in the results
            folder.

    Raises:
        UsageError: it is no URL of SQLite or PostgreSQL.
    """
    given = str(db or os.environ.get(VARIABLE) or results_dir() / DATABASE)
    if "://" not in given:
        return URL.create("sqlite", database=str(Path(given).expanduser().resolve()))
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        # The URL itself may hold a password.
        raise UsageError("--db: not the URL of a database", hint=_hint()) from None
    backend = url.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database and url.database != ":memory:":
        return URL.create("sqlite", database=str(Path(url.database).expanduser().resolve()))
    raise UsageError(f"--db: a database of {backend} cannot hold results", hint=_hint())


def _shown(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    # A password may be among the parameters too.
    query = {name: value for name, value in url.query.items() if name in ("host", "port")}
    return url.set(drivername="postgresql", query=query).render_as_string(hide_password=True)


def _hint() -> str:
    return f"--db or {VARIABLE}: sqlite:///FILE, a file, or postgresql://USER@HOST/NAME"


class Store:
    """An open store; close it, or use it in a ``with`` block.

    Args:
        engine: of SQLAlchemy, its schema in order.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def name(self) -> str:
        """Where it is, for people: no password in it."""
        return _shown(self.engine.url)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads, and sees one state of the store.

        Raises:
            LabBroken: the database cannot be used.
        """
        with self._session("REPEATABLE READ") as session:
            yield session

    @contextmanager
    def write(self, *, exclusive: bool = False) -> Iterator[Session]:
        """A transaction: what the block does is kept whole when it ends well, else not at all.

        Args:
            exclusive: keep other exclusive writers out until the end, where rows of many tables
                are looked up and made.

        Raises:
            LabBroken: the database cannot be used.
        """
        with self._session("READ COMMITTED", **{_WRITE: True}) as session:
            if exclusive and self.engine.dialect.name == "postgresql":
                session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": EXCLUSIVE})
            yield session
            session.commit()

    @contextmanager
    def _session(self, isolation: str, **options: Any) -> Iterator[Session]:
        if self.engine.dialect.name == "postgresql":
            options["isolation_level"] = isolation
        try:
            with Session(self.engine.execution_options(**options)) as session:
                yield session
        except DatabaseError as error:
            # A plain DatabaseError is SQLite's for a damaged file; other kinds are of statements.
            broken = isinstance(error, OperationalError | InternalError)
            if broken or type(error) is DatabaseError:
                raise LabBroken(f"{self.name}: {reason(error)}") from None
            raise

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_store(db: str | Path | None = None) -> Store:
    """Open the store; it is made, or its schema upgraded, if need be.

    Args:
        db: as for ``store_url``.

    Raises:
        UsageError: no such database, not one of this lab's, or a newer lab's; or the library for
            PostgreSQL is missing.
        LabBroken: the server cannot be reached, or another process keeps the store locked.
    """
    url = store_url(db)
    engine = _engine(url)
    store = Store(engine)
    try:
        if url.get_backend_name() == "sqlite":
            _prepare_sqlite(engine, Path(str(url.database)), store.name)
        else:
            with engine.connect() as connection:
                current = is_current(connection, store.name)
            if not current:
                with engine.begin() as connection:
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": EXCLUSIVE}
                    )
                    upgrade(connection, store.name)
    except DBAPIError as error:
        engine.dispose()
        message = f"{store.name}: cannot be opened: {reason(error)}"
        if url.get_backend_name() != "sqlite" and isinstance(error, OperationalError):
            raise LabBroken(message) from None
        raise UsageError(message, hint=_hint()) from None
    except BaseException:
        engine.dispose()
        raise
    return store


def _prepare_sqlite(engine: Engine, file: Path, name: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            with engine.connect() as connection:
                if is_current(connection, name):
                    return
        # The change to WAL does not wait for other connections as transactions do.
        lock = file.with_name(f".{file.name}.lock")
        with (
            locked(lock, Deadline(PATIENCE_SECONDS)),
            engine.execution_options(**{_WRITE: True}).connect() as connection,
        ):
            raw = connection.connection.cursor()
            raw.execute("PRAGMA journal_mode = WAL")
            # A migration that changes a table makes a new one and drops the old one, which would
            # take with it all rows that refer to it. Cannot be set in a transaction (SQLite's
            # documentation of ALTER TABLE, section 7).
            raw.execute("PRAGMA foreign_keys = OFF")
            try:
                with connection.begin():
                    upgrade(connection, name)
                    _check_references(connection, name)
            finally:
                raw.execute("PRAGMA foreign_keys = ON")
                raw.close()
    except OSError as error:
        raise UsageError(f"{file}: cannot be opened: {error.strerror or error}") from None


def _check_references(connection: Connection, name: str) -> None:
    if lost := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise LabBroken(f"{name}: a row of {lost[0]} refers to none of {lost[2]}")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": PATIENCE_SECONDS})
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        return engine
    try:
        return create_engine(url, pool_pre_ping=True)
    except (ModuleNotFoundError, NoSuchModuleError):
        raise UsageError(
            "PostgreSQL needs the library psycopg", hint="pip install 'pvlab[postgres]'"
        ) from None


def _on_connect(connection: Any, _: Any) -> None:
    # The module sqlite3 begins transactions late and ends them early; SQLAlchemy's own
    # documentation (dialects, SQLite, "Serializable isolation") says to take over like this.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    # With WAL, NORMAL can lose the last transactions in a power cut, but never the database;
    # an item of a nightly must not be done twice, though.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    # A transaction that begins by reading cannot wait for another writer when it comes to write.
    write = connection.get_execution_options().get(_WRITE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def reason(error: DBAPIError) -> str:
    """What a database complains of, in one line without the statement."""
    lines = [line for line in str(error.orig).splitlines() if line.strip()]
    return " ".join(" ".join(lines[:2]).split())[:300] or type(error.orig).__name__
