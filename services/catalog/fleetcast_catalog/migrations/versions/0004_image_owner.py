"""Whose user state an image is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; of the images of before nobody knows whose they are."""
    op.add_column("image", sa.Column("owner", sa.String(), nullable=False, server_default=""))
