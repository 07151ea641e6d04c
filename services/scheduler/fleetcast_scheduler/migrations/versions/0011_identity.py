"""What held machines claim to be, and which machines were removed."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column and makes the table."""
    with op.batch_alter_table("machine") as machine:
        machine.add_column(sa.Column("claimed", sa.JSON))
    op.create_table(
        "removed_machine",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("remove_time", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """Takes them away again."""
    op.drop_table("removed_machine")
    with op.batch_alter_table("machine") as machine:
        machine.drop_column("claimed")
