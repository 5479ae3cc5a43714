"""Turns of tests on several drivers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"


def upgrade() -> None:
    """Let a run have a baseline, and a test several outcomes in it; so far it had one."""
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("baseline_id", sa.Integer(), nullable=True))
        runs.create_index("ix_runs_baseline_id", ["baseline_id"])
        runs.create_foreign_key("fk_runs_baseline_id", "driver_builds", ["baseline_id"], ["id"])
    with op.batch_alter_table("outcomes") as outcomes:
        outcomes.add_column(sa.Column("driver_id", sa.Integer(), nullable=True))
        outcomes.add_column(sa.Column("record_id", sa.Text(), nullable=True))
        outcomes.add_column(sa.Column("side", sa.Text(), nullable=True))
        outcomes.add_column(sa.Column("repeat", sa.Integer(), nullable=True))
    op.execute(
        "UPDATE outcomes SET"
        " record_id = (SELECT node_id FROM tests WHERE tests.id = outcomes.test_id),"
        " driver_id = (SELECT driver_id FROM runs WHERE runs.id = outcomes.run_id)"
    )
    with op.batch_alter_table("outcomes") as outcomes:
        outcomes.alter_column("record_id", existing_type=sa.Text(), nullable=False)
        outcomes.drop_constraint("uq_outcomes_run_id", type_="unique")
        outcomes.create_unique_constraint("uq_outcomes_run_id", ["run_id", "record_id"])
        outcomes.create_index("ix_outcomes_driver_id", ["driver_id"])
        outcomes.create_foreign_key("fk_outcomes_driver_id", "driver_builds", ["driver_id"], ["id"])
