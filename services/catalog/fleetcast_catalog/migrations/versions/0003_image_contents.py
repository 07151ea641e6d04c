"""What is inside each image."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; images of before are looked into when the catalog starts."""
    op.add_column("image", sa.Column("contents", sa.Text(), nullable=True))
