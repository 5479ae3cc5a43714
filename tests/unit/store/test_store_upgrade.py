"""A store that an older lab made, and one that a newer lab made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from store_samples import contents, record, write

from lab.core.errors import PvlabError, UsageError
from lab.results.store import Store, import_run, open_store, runs, upgrade
from lab.results.store.models import Base, Run
from lab.results.store.revise import revise

NEXT = '''
"""A step that the next lab takes."""

import sqlalchemy as sa
from alembic import op

revision = "r9999"
down_revision = "{head}"


def upgrade() -> None:
    op.add_column("runs", sa.Column("weather", sa.Text(), server_default="fair"))
    {more}
'''


@pytest.fixture
def old(database: str, results: Path) -> str:
    """A database of this lab, with a run in it."""
    with open_store(database) as store:
        import_run(store, write(results, record(0)))
    return database


def next_lab(tmp_path: Path, patch: pytest.MonkeyPatch, more: str = "pass") -> None:
    """Become a lab with one more migration."""
    migrations = tmp_path / "migrations"
    shutil.copytree(upgrade.MIGRATIONS, migrations)
    (migrations / "versions" / "r9999_next.py").write_text(
        NEXT.format(head=upgrade.head(), more=more)
    )
    patch.setattr(upgrade, "MIGRATIONS", migrations)


def columns(store: Store) -> set[str]:
    return {column["name"] for column in inspect(store.engine).get_columns(Run.__tablename__)}


def test_an_older_store_is_brought_up_to_date(
    old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        next_lab(tmp_path, patch)
        for _ in range(2):
            with open_store(old) as store, store.read() as session:
                assert session.scalar(text("SELECT weather FROM runs")) == "fair"
                assert [row.name for row in runs(store)] == [record(0).run_id]
    with pytest.raises(UsageError, match="its schema r9999 is newer than this pvlab's"):
        open_store(old)


def test_a_table_that_is_made_anew_keeps_what_refers_to_it(
    old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(old) as store:
        before = contents(store)
    more = """
    with op.batch_alter_table("runs", recreate="auto") as batch:
        batch.drop_constraint("uq_runs_name", type_="unique")
        batch.create_unique_constraint("uq_runs_folder", ["folder"])
    op.drop_column("runs", "weather")
"""
    next_lab(tmp_path, monkeypatch, more.strip())
    with open_store(old) as store:
        assert contents(store) == before
        assert before["outcomes"]


def test_an_upgrade_that_fails_changes_nothing(
    old: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        next_lab(tmp_path, patch, 'op.execute("NONSENSE")')
        with pytest.raises(PvlabError, match=r"cannot be opened: .*syntax error"):
            open_store(old)
    with open_store(old) as store:
        assert "weather" not in columns(store)
        assert len(runs(store)) == 1


def test_a_migration_that_is_written_makes_what_the_models_say(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations = tmp_path / "migrations"
    shutil.copytree(upgrade.MIGRATIONS, migrations)
    for step in (migrations / "versions").glob("r*.py"):
        step.unlink()
    monkeypatch.setattr(upgrade, "MIGRATIONS", migrations)
    first = revise("The first schema, made anew!")
    assert first.name == "r0001_the_first_schema_made_anew.py"
    written = first.read_text()
    assert "lab." not in written
    assert "sa.Enum" not in written
    with open_store(database) as store, store.engine.connect() as connection:
        options = {"version_table": upgrade.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    assert "    pass\n" in revise("nothing").read_text()
    with pytest.raises(UsageError):
        revise("!")
