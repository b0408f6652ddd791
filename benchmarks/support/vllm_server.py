"""vLLM's server in its own environment (`make test-vllm` builds it): plain, or with awry's connector by serve.sh.

Contract: `VllmServer(...)` starts the processes and returns; `wait()` returns once it answers, and raises with the end
of its log where it ended instead. `kill()` ends it and its engine at once, `stop()` as an operator does.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODEL_NAME = "smol"
# Of the serving engine: what a CPU needs, and nothing from elsewhere.
CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def environment_of(python: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Nothing of awry's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWRY_", "PYTEST_"))}
    return {**kept, **CPU, "PYTHONPATH": str(ROOT), "PYTHON": str(python), **more}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class VllmServer:
    """See the module. `connector` is what `kv_connector_extra_config` holds; None starts plain vLLM."""

    def __init__(
        self,
        python: Path,
        model: Path,
        folder: Path,
        *,
        connector: Mapping[str, Any] | None = None,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.log = folder / "server.log"
        own = ["--served-model-name", MODEL_NAME, "--host", "127.0.0.1", "--port", str(self.port)]
        own += ["--dtype", "float32", "--max-model-len", "1024", *arguments]
        more = dict(environment or {})
        if connector is None:
            command = [str(python), "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(model), *own]
        else:
            file = folder / "connector.json"
            shipped = json.loads((ROOT / "deploy" / "vllm" / "connector.json").read_text())
            file.write_text(json.dumps(shipped | {"kv_connector_extra_config": dict(connector)}))
            more["AWRY_CONNECTOR"] = str(file)
            command = ["sh", str(ROOT / "deploy" / "vllm" / "serve.sh"), str(model), *own]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=environment_of(python, more),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float = 600) -> None:
        """Until it answers."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.running:
                break
            with suppress(OSError, http.client.HTTPException):
                if get(self.port, "/health")[0] == 200:
                    return
            time.sleep(0.5)
        raise RuntimeError(f"vLLM did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def ended(self, seconds: float = 240) -> str:
        """The log of a server that refuses to start."""
        self._process.wait(seconds)
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """The server and its engine, which are one session."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(60)
        self.kill()


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextmanager
def serving(*args: Any, **kwargs: Any) -> Iterator[VllmServer]:
    """A server that answers, until the block ends."""
    server = VllmServer(*args, **kwargs)
    try:
        server.wait()
        yield server
    finally:
        server.stop()
