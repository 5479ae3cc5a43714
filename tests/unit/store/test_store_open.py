"""Where the store is, and what becomes of its schema."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import column, table, text, update

from lab.core.errors import LabBroken, PvlabError, UsageError
from lab.results.store import Store, open_store, runs, store_url
from lab.results.store.models import Base
from lab.results.store.upgrade import VERSION_TABLE


def refused(database: str) -> str:
    with pytest.raises(UsageError) as caught:
        open_store(database)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_schema_is_what_the_models_say(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_a_newer_schema_is_refused(database: str) -> None:
    with open_store(database) as store, store.write() as session:
        session.execute(
            update(table(VERSION_TABLE, column("version_num"))).values(version_num="r9")
        )
    assert "its schema r9 is newer than this pvlab's" in refused(database)


def test_other_peoples_tables_are_left_alone(database: str) -> None:
    with open_store(database) as store, store.write() as session:
        session.execute(text(f"DROP TABLE {VERSION_TABLE}"))
    assert "holds other tables, such as " in refused(database)


def test_what_is_read_is_one_state(store: Store, database: str) -> None:
    count = text("SELECT count(*) FROM tests")
    with store.read() as session:
        assert session.scalar(count) == 0
        with open_store(database) as other, other.write() as writer:
            writer.execute(text("INSERT INTO tests (node_id) VALUES ('a')"))
        assert session.scalar(count) == 0
    with store.read() as session:
        assert session.scalar(count) == 1


def test_a_transaction_that_fails_changes_nothing(store: Store) -> None:
    def fail() -> None:
        with store.write(exclusive=True) as session:
            session.execute(text("INSERT INTO tests (node_id) VALUES ('a')"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.read() as session:
        assert session.scalar(text("SELECT count(*) FROM tests")) == 0


class TestSqlite:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "a folder" / "results.db"

    def test_how_it_is_set_up(self, file: Path) -> None:
        with open_store(file) as store, store.read() as session:
            assert session.scalar(text("PRAGMA journal_mode")) == "wal"
            assert session.scalar(text("PRAGMA foreign_keys")) == 1
            assert session.scalar(text("PRAGMA busy_timeout")) == 60000

    def test_where_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PVLAB_RESULTS", str(tmp_path / "results"))
        monkeypatch.delenv("PVLAB_DB", raising=False)
        monkeypatch.chdir(tmp_path)
        assert store_url().database == str(tmp_path / "results" / "results.db")
        monkeypatch.setenv("PVLAB_DB", "sqlite:///from.db")
        assert store_url().database == str(tmp_path / "from.db")
        assert store_url("to.db").database == str(tmp_path / "to.db")
        assert store_url(Path("/a/b.db")).database == "/a/b.db"
        url = store_url("postgresql://me:secret@there/results")
        assert url.drivername == "postgresql+psycopg"

    @pytest.mark.parametrize(
        "url", ["mysql://me:secret@there/db", "sqlite://", "sqlite:///:memory:", "a://b:c://d"]
    )
    def test_no_place_for_results(self, url: str) -> None:
        message = refused(url)
        assert "postgresql://USER@HOST/NAME" in message
        assert "secret" not in message

    def test_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("results\n" * 1000)
        assert "file is not a database" in refused(str(tmp_path / "text"))
        assert "cannot be opened" in refused(str(tmp_path))
        assert "cannot be opened" in refused(str(tmp_path / "text" / "below"))
        assert (tmp_path / "text").read_text() == "results\n" * 1000

    def test_postgresql_without_its_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        assert "pip install 'pvlab[postgres]'" in refused("postgresql://nobody@/none")

    def test_postgresql_that_is_not_there(self, tmp_path: Path) -> None:
        pytest.importorskip("psycopg")
        with pytest.raises(LabBroken) as caught:
            open_store(f"postgresql://me:secret@/none?host={tmp_path}&password=secret")
        assert str(caught.value).startswith("postgresql://me:***@/none?host=")
        assert "cannot be opened: connection " in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_database_that_breaks(self, file: Path) -> None:
        with open_store(file) as store:
            with store.write() as session:
                session.execute(text("DROP TABLE runs"))
            with pytest.raises(PvlabError, match="no such table: runs"):
                runs(store)
