"""Sessions, participants, senders, transmissions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "session",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("image_size_bytes", sa.BigInteger, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, index=True),
        sa.Column("rules", sa.JSON, nullable=False),
        sa.Column("rate", sa.JSON, nullable=False),
        sa.Column("create_time", sa.Double, nullable=False),
        sa.Column("start_time", sa.Double),
        sa.Column("end_time", sa.Double),
        sa.Column("first_join_time", sa.Double),
        sa.Column("last_join_time", sa.Double),
        sa.Column("lost_time", sa.Double),
        sa.Column("idle_time", sa.Double),
        sa.Column("retry_time", sa.Double),
        sa.Column("waiting_reason", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("traceparent", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False, index=True),
        sa.Column("transmission", sa.Text, nullable=False),
        sa.Column("transmission_count", sa.BigInteger, nullable=False),
        sa.Column("failure_count", sa.BigInteger, nullable=False),
        sa.Column("start_requested", sa.Boolean, nullable=False),
        sa.Column("hold_released", sa.Boolean, nullable=False, index=True),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("edit_count", sa.BigInteger, nullable=False),
    )
    op.create_index("session_by_create_time", "session", ["create_time", "name"])
    op.create_table(
        "participant",
        sa.Column("session", sa.Text, primary_key=True),
        sa.Column("machine", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("unicast_only", sa.Boolean, nullable=False),
        sa.Column("no_multicast_reason", sa.Text, nullable=False),
        sa.Column("join_time", sa.Double, nullable=False),
        sa.Column("contact_time", sa.Double, nullable=False),
        sa.Column("end_time", sa.Double),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("totals", sa.JSON, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_index("participant_by_number", "participant", ["session", "number"])
    op.create_table(
        "sender",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("registration", sa.JSON, nullable=False),
        sa.Column("register_time", sa.Double, nullable=False),
        sa.Column("contact_time", sa.Double, nullable=False),
    )
    op.create_table(
        "transmission",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("session", sa.Text, nullable=False, index=True),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("group", sa.Text, nullable=False),
        sa.Column("port", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False, index=True),
        sa.Column("create_time", sa.Double, nullable=False),
        sa.Column("release_time", sa.Double),
        sa.Column("totals", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    """Drops the tables."""
    for table in ("transmission", "sender", "participant", "session"):
        op.drop_table(table)
