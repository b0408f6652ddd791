"""`awry ingest` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.stream.kafka import wait_for


class IngestProcess:
    """The command on a free port of loopback; settings by their names. Its log is in `folder`."""

    def __init__(self, folder: Path, database_url: str, **settings: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"ingest-{time.monotonic_ns()}.log"
        given = {"database_url": database_url, "state_dir": folder, "ingest_listen": "127.0.0.1:0"} | settings
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWRY_")}
        environment |= {f"AWRY_{name.upper()}": str(value) for name, value in given.items()}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name("awry")), "ingest"],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=folder,
            )
        self.url: str = wait_for(self._started, 60)

    def _started(self) -> str:
        assert self._process.poll() is None, self.log.read_text()
        for line in self.log.read_text().splitlines():
            if "takes messages on " in line:
                return line.partition("takes messages on ")[2].partition(",")[0]
        return ""

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(20)

    def stop(self) -> int:
        """Its exit status after SIGTERM."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(40)
