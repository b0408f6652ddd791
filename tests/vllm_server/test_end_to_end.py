"""A real server by deploy/vllm/serve.sh with openai's client: readings through a real Kafka, by a real worker, into
PostgreSQL, with alerts; and what is known of what was lost where a broker, a worker or the server is gone.

One server, one worker and one broker for the file, whose tests go on from one another.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from openai import OpenAI
from sqlalchemy import Engine, func, select

from alerts.evaluator import evaluate
from alerts.rules.builtin import built_in
from benchmarks.support.vllm_server import MODEL_NAME, VllmServer
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, running
from probes.organisms.messages import everyday
from probes.organisms.messages import requests as pairs
from storage import schema
from tests.conftest import url_of
from tests.support.cli import AWRY, environment
from tests.support.stream.kafka import new_topic, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(900)]

PYTHON = Path(os.environ["PYTEST_VLLM"]) / "bin" / "python"
GATEWAY_KEY = "the-key-of-the-gateway-and-of-nobody-else"
PROBE = "harmful-request"
REQUESTS = 200


@dataclass
class Stack:
    """What runs, and whatever a test has started in its place."""

    engine: Engine
    broker: Broker
    topic: str
    model: Path
    folder: Path
    server: VllmServer = field(init=False)
    worker: subprocess.Popen[bytes] = field(init=False)

    def start_server(self) -> None:
        connector = {
            "probes": [PROBE],
            "readings": f"kafka:{self.topic}",
            "kafka": {"bootstrap": self.broker.address},
            "heartbeat_seconds": 1.0,
        }
        own = {"OMP_NUM_THREADS": "1", "AWRY_GATEWAY_KEY": GATEWAY_KEY}
        self.server = VllmServer(PYTHON, self.model, self.folder, connector=connector, environment=own)

    def start_worker(self) -> None:
        command = [AWRY, "run", "--source", f"kafka:{self.topic}", "--readings", "--probe", PROBE]
        command += ["--from", "earliest", "--listen", "127.0.0.1:0"]
        command += ["--dead-letters-out", str(self.folder / "dead-letters")]
        command += ["--database-url", url_of(self.engine), "--state-dir", str(self.folder / "state"), "--logs", "json"]
        with (self.folder / "worker.log").open("ab") as log:
            own = environment() | {"AWRY_READINGS_GRACE_SECONDS": "5", "AWRY_KAFKA_BOOTSTRAP": self.broker.address}
            self.worker = subprocess.Popen(command, env=own, stdout=log, stderr=log)

    def ids(self) -> list[str]:
        """Of the messages in the tables, one for each row."""
        with self.engine.connect() as connection:
            return list(connection.scalars(select(schema.messages.c.message_id)))

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=self.server.url, api_key="none", max_retries=0, timeout=300)


@pytest.fixture(scope="module")
def stack(
    module_engine: Engine, state: Path, jar_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    from probes.model.builtin import SMOLLM2, ensure

    folder = tmp_path_factory.mktemp("vllm")
    with running(Broker(folder / "kafka", jar_folder=jar_folder)) as broker:
        made = Stack(module_engine, broker, new_topic(Cluster(broker.address)), ensure(SMOLLM2, state), folder)
        made.start_server()
        made.start_worker()
        try:
            made.server.wait()
            yield made
        finally:
            made.server.kill()
            made.worker.kill()
            made.worker.wait()


def send(client: OpenAI, number: int) -> str:
    """A request of one of the forms, and the id that its answer had. Every tenth client leaves in the middle."""
    texts = [each["harmful"] for each in pairs()] if number % 4 == 0 else everyday("test")
    more: dict[str, Any] = {"extra_body": {"kv_transfer_params": {"awry": {"conversation_id": f"c{number}"}}}}
    if number % 3 == 0:
        more["extra_headers"] = {"x-awry-gateway-key": GATEWAY_KEY, "x-awry-tenant": "acme"}
    elif number % 3 == 1:
        # Says so, and is not believed.
        claim = {"tenant": "acme", "verified": {"fields": ["tenant"], "nonce": "n", "mac": "m"}}
        more["extra_body"] = {"kv_transfer_params": {"awry": claim}}
    aborted = number % 10 == 5
    question: Any = {
        "model": MODEL_NAME,
        "messages": [{"role": "user", "content": texts[number % len(texts)]}],
        "max_tokens": 200 if aborted else 3,
        "temperature": 0,
        **more,
    }
    if not (aborted or number % 2):
        return str(client.chat.completions.create(**question).id)
    with client.chat.completions.create(**question, stream=True) as stream:
        for chunk in stream:
            name = str(chunk.id)
            if aborted:
                break
    return name


def test_200_requests_are_200_readings_whatever_the_worker_goes_through(stack: Stack) -> None:
    with ThreadPoolExecutor(16) as pool:
        sent = [pool.submit(send, stack.client, number) for number in range(REQUESTS)]
        # 0 lost, 0 twice: the worker is killed while they come, and once more.
        for stored in (20, 90):
            wait_for(lambda stored=stored: len(stack.ids()) >= stored, 400)  # type: ignore[misc]
            stack.worker.kill()
            stack.worker.wait()
            stack.start_worker()
        names = [each.result() for each in sent]
    assert len(set(names)) == REQUESTS
    wait_for(lambda: len(stack.ids()) >= REQUESTS, 120)
    time.sleep(3)
    assert sorted(stack.ids()) == sorted(names)
    found, scores, messages = {}, schema.scores.c, schema.messages.c
    with stack.engine.connect() as connection:
        for row in connection.execute(select(schema.messages)).mappings():
            found[row["message_id"]] = row
        assert set(connection.scalars(select(scores.probe))) == {PROBE}
        flagged = connection.execute(select(func.count()).where(scores.flagged)).scalar_one()
        scored = connection.execute(select(func.count()).select_from(schema.scores)).scalar_one()
        alerts = connection.execute(select(func.sum(schema.alerts.c.count))).scalar_one()
        assert set(connection.scalars(select(messages.status))) <= {"scored", "skipped"}
        gaps = connection.execute(select(func.count()).select_from(schema.reading_gaps)).scalar_one()
    # A client that left before the model began has nothing to score; all else has.
    assert scored >= REQUESTS * 0.9
    assert 0 < flagged < REQUESTS
    assert alerts == flagged
    assert gaps == 0
    for number, name in enumerate(names):
        row = found[name]
        assert row["text"] is None
        assert row["tenant"] == ("acme" if number % 3 < 2 else None)
        vouched = "tenant" in str((row["attributes"] or {}).get("verified", ""))
        assert vouched == (number % 3 == 0), row["attributes"]
        assert row["conversation_id"] == (f"c{number}" if number % 3 != 1 else None)
        if number % 10 != 5:
            assert row["status"] == "scored", row["reason"]


def test_a_broker_that_is_away_neither_slows_nor_stops_the_server(stack: Stack) -> None:
    def timed(numbers: range) -> tuple[list[str], float]:
        names, seconds = [], []
        for number in numbers:
            begun = time.monotonic()
            names.append(send(stack.client, number * 10))
            seconds.append(time.monotonic() - begun)
        return names, median(seconds)

    names, before = timed(range(20))
    stack.broker.kill()
    more, away = timed(range(20))
    assert away < 2 * before + 0.5
    stack.broker.start()
    wait_for(lambda: {*names, *more} <= set(stack.ids()), 200)
    ids = stack.ids()
    assert len(ids) == len(set(ids)) == REQUESTS + 40


def test_a_killed_server_is_a_gap_and_an_alert(stack: Stack) -> None:
    gaps = schema.reading_gaps.c

    def counted() -> list[Any]:
        with stack.engine.connect() as connection:
            return list(connection.execute(select(gaps.kind, gaps.readings).where(gaps.counted_at.is_not(None))))

    assert counted() == []
    stack.server.kill()
    stack.start_server()
    stack.server.wait()
    name = send(stack.client, 1)
    wait_for(lambda: name in stack.ids(), 60)
    assert [kind for kind, _ in wait_for(counted, 120)] == ["new_instance"]
    evaluate(stack.engine, built_in(1.0, 2.0), ())
    with stack.engine.connect() as connection:
        open_ = connection.scalars(select(schema.alerts.c.rule).where(schema.alerts.c.kind == "monitor"))
        assert "reading-gaps" in set(open_)


def test_the_cards_reference_scores_through_the_server(stack: Stack, state: Path) -> None:
    def checked(*probes: str) -> tuple[int, dict[str, Any]]:
        command = [AWRY, "check-server", stack.server.url, f"kafka:{stack.topic}", "--json"]
        command += [*(f"--probe={name}" for name in probes), "--state-dir", str(state)]
        own = environment() | {"AWRY_KAFKA_BOOTSTRAP": stack.broker.address}
        done = subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=200)
        assert done.stdout, done.stderr
        return done.returncode, {each["probe"]: each for each in json.loads(done.stdout)}

    code, found = checked(PROBE)
    assert code == 0
    assert 0 <= found[PROBE]["largest_difference"] <= 1e-4
    code, found = checked(PROBE, "spilled-code-response")
    assert code == 1
    assert found[PROBE]["agrees"]
    assert "probe of responses" in found["spilled-code-response"]["not_compared"]


def test_a_server_that_ends_by_itself_is_no_gap(stack: Stack) -> None:
    instances = schema.reading_instances.c
    stack.server.stop()

    def states() -> dict[str, int]:
        with stack.engine.connect() as connection:
            chosen = select(instances.state, func.count()).group_by(instances.state)
            return {state: count for state, count in connection.execute(chosen)}  # noqa: C416 - a row is no pair

    wait_for(lambda: states().get("closed") == 1, 60)
    stack.worker.send_signal(signal.SIGTERM)
    assert stack.worker.wait(60) == 0
