"""What Alembic runs for `upgrade.upgrade_schema`: the migrations, on a connection that is open."""

from alembic import context

from rlm_integrations.storage.schema import VERSION_TABLE, Names

_attributes = context.config.attributes
_names: Names = _attributes["names"]
context.configure(
    connection=_attributes["connection"],
    version_table=_names.table(VERSION_TABLE),
    version_table_schema=_names.schema,
)
context.run_migrations()
