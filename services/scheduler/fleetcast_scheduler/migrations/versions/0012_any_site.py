"""Whether senders of other sites may serve a session too."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    with op.batch_alter_table("session") as session:
        session.add_column(sa.Column("any_site", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Takes it away again."""
    with op.batch_alter_table("session") as session:
        session.drop_column("any_site")
