"""Where the requests of the audit came from."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    with op.batch_alter_table("audit") as audit:
        audit.add_column(sa.Column("address", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Takes it away again."""
    with op.batch_alter_table("audit") as audit:
        audit.drop_column("address")
