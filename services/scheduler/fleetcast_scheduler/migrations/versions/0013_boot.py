"""Machines that start from the network: their codes, the tokens that only let them knock, and when who is admitted."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("enrolment_token", "purpose"),
    ("enrolment", "code"),
    ("machine", "code"),
    ("run", "restart_environment"),
)


def upgrade() -> None:
    """Adds the columns and makes the table."""
    for table, column in _COLUMNS:
        with op.batch_alter_table(table) as changed:
            changed.add_column(sa.Column(column, sa.Text, nullable=False, server_default=""))
    op.create_table(
        "boot_window",
        sa.Column("collection", sa.Text, primary_key=True),
        sa.Column("end_time", sa.Double, nullable=False),
        sa.Column("expected_count", sa.BigInteger, nullable=False),
        sa.Column("admitted", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    """Takes them away again."""
    op.drop_table("boot_window")
    for table, column in _COLUMNS:
        with op.batch_alter_table(table) as changed:
            changed.drop_column(column)
