"""Enrolment tokens and enrolments."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "enrolment_token",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("uses", sa.BigInteger, nullable=False),
        sa.Column("used_count", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.Double, nullable=False),
        sa.Column("expire_time", sa.Double, nullable=False),
        sa.Column("revoke_time", sa.Double),
        sa.Column("creator", sa.Text, nullable=False),
        sa.Column("root_pem", sa.Text, nullable=False),
    )
    op.create_index("enrolment_token_by_create_time", "enrolment_token", ["create_time", "id"])
    op.create_table(
        "enrolment",
        sa.Column("public_key_digest", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("enrol_time", sa.Double, nullable=False),
        sa.UniqueConstraint("name", name="enrolment_name"),
    )


def downgrade() -> None:
    """Drops the tables."""
    op.drop_table("enrolment")
    op.drop_table("enrolment_token")
