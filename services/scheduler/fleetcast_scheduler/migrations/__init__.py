"""The Alembic revisions of the scheduler's tables."""
