"""The variables of runs, as they were when these began."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    with op.batch_alter_table("run") as run:
        run.add_column(sa.Column("variables", sa.JSON))


def downgrade() -> None:
    """Takes it away again."""
    with op.batch_alter_table("run") as run:
        run.drop_column("variables")
