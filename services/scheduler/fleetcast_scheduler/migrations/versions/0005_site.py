"""Where the machines of a session stand."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    with op.batch_alter_table("session") as session:
        session.add_column(sa.Column("site", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Takes it away again."""
    with op.batch_alter_table("session") as session:
        session.drop_column("site")
