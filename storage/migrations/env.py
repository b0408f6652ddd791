"""Alembic's entry: runs the migrations on the connection that `storage.database.upgrade` passes on."""

from alembic import context

from storage.partitions import is_partition
from storage.schema import metadata


def _ours(name: str | None, kind: str, _: object) -> bool:
    return kind != "table" or name is None or not is_partition(name)


connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True, include_name=_ours)
with context.begin_transaction():
    context.run_migrations()
