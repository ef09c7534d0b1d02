"""Alembic's folder: how the control tables came to be. Loaded only when a database is behind."""
