"""The history of the catalog's tables, for Alembic."""
