"""Task sequence versions, their content and their holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables of task sequences."""
    op.create_table(
        "task_sequence",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("task_sequence", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("step_count", sa.Integer(), nullable=False),
        sa.Column("source_file", sa.String(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("task_sequence", "digest"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "task_sequence_content",
        sa.Column(
            "task_sequence_id", sa.Integer(), sa.ForeignKey("task_sequence.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("canonical_form", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "task_sequence_hold",
        sa.Column("task_sequence_id", sa.Integer(), sa.ForeignKey("task_sequence.id"), primary_key=True),
        sa.Column("holder", sa.String(), primary_key=True),
    )
