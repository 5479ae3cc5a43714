"""Migrations of the store's schema, one module a step, run by Alembic."""
