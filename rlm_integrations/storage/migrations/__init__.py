"""The history of the schema, as Alembic migrations; `upgrade.py` runs what is missing."""
