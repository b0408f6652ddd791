"""The database that a command works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine


@contextmanager
def opened(database_url: str | None, state_dir: Path | None) -> Iterator[Engine]:
    """An engine on the database of the settings, whose schema is at head, until the block ends."""
    from monitor.service import bootstrap
    from monitor.settings import load_settings

    engine = bootstrap.open_database(load_settings(database_url=database_url, state_dir=state_dir))
    try:
        yield engine
    finally:
        engine.dispose()
