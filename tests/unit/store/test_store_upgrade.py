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
from lab.results.store import Store, cells, import_run, open_store, runs, upgrade
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


FIRST = (
    "INSERT INTO hosts (id, kernel, os, cpus, memory_mib) VALUES (1, 'k', 'o', 1, 1)",
    "INSERT INTO tests (id, node_id) VALUES (7, 't')",
    "INSERT INTO driver_builds (id, sha256, name, version, files) VALUES (3, 'd', 'n', '1', '[]')",
    "INSERT INTO runs (id, name, folder, machine, digest, troubles, started, ended_how, command,"
    " profile, guest_label, intensity, workers, versions, errata, reasons, host_id, driver_id)"
    " VALUES (5, 'r', '/r', 'm', 'x', '[]', '2026-01-02 12:00:00', 'running', '', 'p', 'g',"
    " 'smoke', 1, '{}', '[]', '[]', 1, 3)",
    "INSERT INTO outcomes (id, run_id, test_id, position, area, outcome, phase, seconds, message,"
    " evidence_complete, properties) VALUES (9, 5, 7, 0, '', 'failed', 'call', 1, '', FALSE, '{}')",
    'INSERT INTO campaigns (outcome_id, attempts, failures, failed_seeds, "limit", confidence,'
    " least, most, answer) VALUES (9, 5, 1, '[4]', 0.1, 0.95, 0.1, 0.5, 'open')",
)


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


def test_a_store_without_turns(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first schema, with rows that refer to those that are made anew."""
    with monkeypatch.context() as patch:
        first = tmp_path / "migrations"
        shutil.copytree(upgrade.MIGRATIONS, first)
        for step in (first / "versions").glob("r0*.py"):
            if not step.name.startswith("r0001"):
                step.unlink()
        patch.setattr(upgrade, "MIGRATIONS", first)
        with open_store(database) as store, store.write() as session:
            for statement in FIRST:
                session.execute(text(statement))
    with open_store(database) as store:
        (row,) = runs(store)
        (cell,) = cells(store, ["r"])
        assert row.driver is not None
        assert (row.driver.sha256, row.baseline) == ("d", None)
        assert (cell.test, cell.base, cell.driver, cell.side) == ("t", "t", "d", None)
        assert cell.campaign is not None
        assert cell.campaign.failures == 1


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
