"""Sessions that recur or await a collection, and machines that an operator has served by unicast."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns."""
    with op.batch_alter_table("session") as session:
        session.add_column(sa.Column("collection", sa.Text, nullable=False, server_default=""))
        session.add_column(sa.Column("series", sa.JSON))
    with op.batch_alter_table("participant") as participant:
        participant.add_column(sa.Column("apart", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Takes them away again."""
    with op.batch_alter_table("participant") as participant:
        participant.drop_column("apart")
    with op.batch_alter_table("session") as session:
        session.drop_column("series")
        session.drop_column("collection")
