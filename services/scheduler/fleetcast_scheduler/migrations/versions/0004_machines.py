"""Machines and collections."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "machine",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("held_reason", sa.Text, nullable=False),
        sa.Column("resembles", sa.Text, nullable=False),
        sa.Column("inventory", sa.JSON, nullable=False),
        sa.Column("variables", sa.JSON, nullable=False),
        sa.Column("protected", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.Double, nullable=False),
        sa.Column("register_time", sa.Double),
        sa.Column("edit_count", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "machine_identifier",
        sa.Column("machine", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, primary_key=True, index=True),
    )
    op.create_table(
        "collection",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("variables", sa.JSON, nullable=False),
        sa.Column("protected", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.Double, nullable=False),
        sa.Column("edit_count", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "membership",
        sa.Column("collection", sa.Text, primary_key=True),
        sa.Column("machine", sa.Text, primary_key=True, index=True),
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    """Drops the tables."""
    for table in ("setting", "membership", "collection", "machine_identifier", "machine"):
        op.drop_table(table)
