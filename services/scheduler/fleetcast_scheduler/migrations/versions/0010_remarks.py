"""The remarks of runs and their steps."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns."""
    for table in ("run", "run_step"):
        with op.batch_alter_table(table) as rows:
            rows.add_column(sa.Column("remarks", sa.JSON, nullable=False, server_default="[]"))


def downgrade() -> None:
    """Takes them away again."""
    for table in ("run", "run_step"):
        with op.batch_alter_table(table) as rows:
            rows.drop_column("remarks")
