"""A database that lasts as long as one benchmark: the embedded PostgreSQL, without waiting for the disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from storage.database import connect, upgrade
from storage.embedded import embedded_url


@contextmanager
def scratch_database(keep: Path | None = None, *, empty: bool = False) -> Iterator[tuple[Engine, Path]]:
    """An engine whose schema is at head (or `empty`), and its folder; both go in the end, but for one to `keep`."""
    folder = keep or Path(tempfile.mkdtemp(prefix="awry-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    engine = connect(embedded_url(folder))
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for setting, value in (("fsync", "off"), ("synchronous_commit", "off"), ("max_wal_size", "'8GB'")):
                connection.execute(text(f"ALTER SYSTEM SET {setting} = {value}"))
            connection.execute(text("SELECT pg_reload_conf()"))
        if not empty:
            upgrade(engine)
        yield engine, folder
    finally:
        engine.dispose()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
