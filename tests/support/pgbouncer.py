"""A real PgBouncer before a test's database."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from tests.conftest import needs_program


@contextmanager
def pgbouncer(engine: Engine, pool_mode: str = "transaction", pool_size: int = 3) -> Iterator[str]:
    """The URL of a PgBouncer that lends `pool_size` connections of this database, with Debian's other defaults."""
    program = needs_program("pgbouncer", "apt-get install pgbouncer")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="aw-pgb-"))
    name, host = engine.url.database, engine.url.query["host"]
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{name} = host={host} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\ndefault_pool_size = {pool_size}\n"
        f"logfile = {folder / 'log'}\n"
    )
    if os.geteuid() == 0:
        # It refuses to run as root; the embedded server's user is the one that its socket lets in.
        owner = pwd.getpwnam("pgserver")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        process = subprocess.Popen([program, "-q", "-u", "pgserver", folder / "pgbouncer.ini"])
        folder.chmod(0o755)
    else:
        process = subprocess.Popen([program, "-q", folder / "pgbouncer.ini"])
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/{name}"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
