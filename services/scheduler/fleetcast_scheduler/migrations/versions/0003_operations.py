"""What operators set for sessions and senders, and the record of what they did."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ADMISSION = '{"until_time": null, "late_policy": "JOIN", "end_policy": "FINISH", "max_participants": 0}'
_SLOW_POLICY = '{"action": "UNICAST", "threshold_bits_per_second": 0}'


def upgrade() -> None:
    """Adds the columns and the table."""
    with op.batch_alter_table("session") as session:
        session.add_column(sa.Column("admission", sa.JSON, nullable=False, server_default=_ADMISSION))
        session.add_column(sa.Column("slow_policy", sa.JSON, nullable=False, server_default=_SLOW_POLICY))
        session.add_column(sa.Column("priority", sa.BigInteger, nullable=False, server_default="0"))
        session.add_column(sa.Column("closed", sa.Boolean, nullable=False, server_default=sa.false()))
        session.add_column(sa.Column("run", sa.BigInteger, nullable=False, server_default="0"))
    with op.batch_alter_table("participant") as participant:
        participant.add_column(sa.Column("run", sa.BigInteger, nullable=False, server_default="0"))
    with op.batch_alter_table("sender") as sender:
        sender.add_column(sa.Column("draining", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "audit",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("resource", sa.Text, nullable=False, index=True),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False, index=True),
        sa.Column("traceparent", sa.Text, nullable=False),
    )
    op.create_index("audit_by_time", "audit", ["time", "name"])


def downgrade() -> None:
    """Takes them away again."""
    op.drop_table("audit")
    with op.batch_alter_table("sender") as sender:
        sender.drop_column("draining")
    with op.batch_alter_table("participant") as participant:
        participant.drop_column("run")
    with op.batch_alter_table("session") as session:
        for column in ("run", "closed", "priority", "slow_policy", "admission"):
            session.drop_column(column)
