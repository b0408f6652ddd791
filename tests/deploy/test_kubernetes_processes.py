"""The containers of deploy/kubernetes, run here without Kubernetes: command and environment of each manifest, on a real
PostgreSQL and a real Kafka, asked and stopped as a kubelet does it.

What differs from a pod: addresses are this machine's, secrets and state are in folders of the test. Where the kernel
allows it the processes run under a user id that nobody has, as OpenShift gives it.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, free_port
from storage.database import head_revision
from tests.deploy.test_kubernetes import PORT, SECRET_MOUNT, container, pod, settings_of, with_components, workloads
from tests.support.cli import AWRY
from tests.support.stream.kafka import unique, wait_for
from tests.support.tcp_relay import over_tcp

Object = dict[str, Any]
NOBODY = 1_000_650_000
# The startup probe's.
SECONDS = 300


class Pod:
    """What a pod has beside its manifest: secrets, a state folder, addresses."""

    def __init__(self, folder: Path, objects: list[Object], database_url: str) -> None:
        self._objects, self._state = objects, folder / "state"
        self._secrets = folder / "secrets"
        for path in (self._state, self._secrets):
            path.mkdir(parents=True)
        (self._secrets / "database-url").write_text(database_url)
        (self._secrets / "destinations").write_text('[{"name": "soc", "kind": "console"}]')
        self.port = free_port()
        self.given: dict[str, str] = {}

    def environment(self) -> dict[str, str]:
        settings = {n: v.replace(SECRET_MOUNT, str(self._secrets)) for n, v in settings_of(self._objects).items()}
        here = {n: v.replace(f"0.0.0.0:{PORT}", f"127.0.0.1:{self.port}") for n, v in settings.items()}
        # What the image sets.
        image = {"HOME": str(self._state), "AWRY_STATE_DIR": str(self._state), "PATH": os.environ["PATH"]}
        others = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        # A Service of ours is in the namespace, and nobody set enableServiceLinks.
        links = {"AWRY_SERVE_SERVICE_HOST": "10.96.0.7", "AWRY_SERVE_PORT": "tcp://10.96.0.7:9464"}
        return {**others, **image, **links, **here, **self.given}

    def exec(self, *words: str) -> str:
        """`kubectl exec` of an awry command in this pod: what it prints."""
        done = subprocess.run(
            [*as_nobody(), AWRY, *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            cwd=self._state,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def post(self, path: str, token: str, body: Any) -> Any:
        """The JSON that it answers with."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - loopback
            return json.load(response)

    def has_weights(self, state: Path) -> None:
        """Those of the image."""
        (self._state / "models").symlink_to((state / "models").resolve())

    @contextmanager
    def started(self, component: str) -> Iterator[subprocess.Popen[bytes]]:
        """The container's process; at the end SIGTERM, and status 0 within its grace period."""
        manifest = workloads(self._objects)[component]
        log = self._state / f"{component}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*as_nobody(), AWRY, *container(manifest)["args"]],
                env=self.environment(),
                stdout=output,
                stderr=output,
                cwd=self._state,
            )
        try:
            yield process
            if process.poll() is None:
                process.terminate()
            assert process.wait(pod(manifest).get("terminationGracePeriodSeconds", SECONDS)) == 0, log.read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def probed(self, component: str, process: subprocess.Popen[bytes], kind: str) -> None:
        """Wait until the manifest's probe is content."""
        path = container(workloads(self._objects)[component])[kind]["httpGet"]["path"]
        log = self._state / f"{component}.log"

        def is_content() -> bool:
            assert process.poll() is None, log.read_text()
            return status(f"http://127.0.0.1:{self.port}{path}") == 200

        wait_for(is_content, SECONDS)


@cache
def as_nobody() -> tuple[str, ...]:
    """What starts a program, in its own process, under a user id without an entry in passwd."""
    words = ("unshare", "--user", f"--map-user={NOBODY}", "--map-group=0")
    try:
        return words if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0 else ()
    except FileNotFoundError:
        return ()


def status(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - loopback
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.fixture(scope="session")
def objects(built: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """Every pod, those of components too."""
    return with_components(built, tmp_path_factory.mktemp("objects"), ["score-server", "retention"])


@pytest.fixture
def database_url(engine: Engine) -> Iterator[str]:
    with over_tcp(engine) as url:
        yield url


@pytest.fixture
def empty_database_url(empty_engine: Engine) -> Iterator[str]:
    with over_tcp(empty_engine) as url:
        yield url


@pytest.mark.slow
def test_the_job_makes_the_schema_and_may_run_again(
    tmp_path: Path, objects: list[Object], empty_engine: Engine, empty_database_url: str
) -> None:
    made = Pod(tmp_path, objects, empty_database_url)
    for _ in range(2):
        with made.started("migrate") as process:
            assert process.wait(SECONDS) == 0
        with empty_engine.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == head_revision()


@pytest.mark.slow
def test_the_daily_job_drops_what_is_old_and_ends(
    tmp_path: Path, objects: list[Object], engine: Engine, database_url: str
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO silences (id, rule, severity, ends_at, comment, created_by) "
                "VALUES (gen_random_uuid(), 'x', 'critical', now() - interval '200 days', '', 'anna')"
            )
        )
    with Pod(tmp_path, objects, database_url).started("retain") as process:
        assert process.wait(SECONDS) == 0
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM silences")).scalar_one() == 0


@pytest.mark.slow
@pytest.mark.parametrize("component", ["send", "serve"])
def test_a_process_before_the_schema_ends_and_says_what_to_do(
    tmp_path: Path, objects: list[Object], empty_database_url: str, component: str
) -> None:
    made = Pod(tmp_path, objects, empty_database_url)
    with pytest.raises(AssertionError, match="awry db upgrade"), made.started(component) as process:
        assert process.wait(SECONDS) != 0


@pytest.mark.slow
@pytest.mark.parametrize("component", ["send", "serve"])
def test_it_starts_is_ready_and_drains(
    tmp_path: Path, objects: list[Object], database_url: str, component: str
) -> None:
    made = Pod(tmp_path, objects, database_url)
    with made.started(component) as process:
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            made.probed(component, process, kind)
        assert status(f"http://127.0.0.1:{made.port}/metrics") == 200


@pytest.mark.model
@pytest.mark.timeout(900)
def test_a_message_goes_from_the_receiver_to_the_worker(
    tmp_path: Path,
    objects: list[Object],
    engine: Engine,
    database_url: str,
    broker: Broker,
    cluster: Cluster,
    state: Path,
) -> None:
    """Over the manifests' own topics' names, made unique: the broker is the session's."""
    topics = {name: unique(name) for name in ("awry.traffic", "awry.verdicts", "awry.answers", "awry.dead-letters")}
    cluster.create_topics(list(topics.values()), 2)
    given = {"AWRY_KAFKA_BOOTSTRAP": broker.address, "AWRY_KAFKA_GROUP": unique("group")}
    for name, value in settings_of(objects).items():
        for topic, own in topics.items():
            if value in (topic, f"kafka:{topic}"):
                given[name] = value.replace(topic, own)
    assert len(given) == 7
    receiver, worker = (Pod(tmp_path / name, objects, database_url) for name in ("receiver", "worker"))
    receiver.given = worker.given = given
    worker.has_weights(state)
    token = receiver.exec("tokens", "create", "gateway", "--scope", "ingest")
    with receiver.started("ingest") as process:
        receiver.probed("ingest", process, "readinessProbe")
        receiver.post("/v1/ingest", token, [{"id": f"m{n}", "prompt": "How do I sort a list?"} for n in range(4)])

    def scored() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM messages WHERE status = 'scored'")).scalar_one())

    with worker.started("run") as process:
        worker.probed("run", process, "startupProbe")
        worker.probed("run", process, "readinessProbe")
        wait_for(lambda: scored() == 4, SECONDS)
        worker.probed("run", process, "livenessProbe")


@pytest.mark.model
@pytest.mark.timeout(900)
def test_the_score_server_answers_with_a_verdict(
    tmp_path: Path, objects: list[Object], engine: Engine, database_url: str, state: Path
) -> None:
    made = Pod(tmp_path, objects, database_url)
    made.has_weights(state)
    token = made.exec("tokens", "create", "gateway", "--scope", "score")
    with made.started("score-server") as process:
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            made.probed("score-server", process, kind)
        verdict = made.post("/api/v1/score", token, {"id": "1", "prompt": "How do I sort a list?"})
        assert verdict["decision"] == "pass"
        assert verdict["messages"][0]["scores"]
        assert status(f"http://127.0.0.1:{made.port}/metrics") == 200
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM messages")).scalar_one() == 0
