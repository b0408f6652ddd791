"""`awry ingest` as people start it: into Kafka or the spool, while the broker goes away, killed at any point."""

from __future__ import annotations

import json
import random
import re
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine

from monitor.errors import ClusterError
from monitor.ingest.server import open_sink, topic_of
from monitor.settings import load_settings
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, running
from monitor.stream.spool import decode_line
from tests.support.cli import awry, refused
from tests.support.ingest.process import IngestProcess
from tests.support.ingest.receiver import client
from tests.support.ingest.topic import everything
from tests.support.stream.kafka import new_topic, wait_for
from tests.support.web.api import token

pytestmark = pytest.mark.slow

CANARY = "canary-text-of-a-prompt"


@pytest.fixture
def secret(engine: Engine) -> str:
    return token(engine, "gateway", "ingest")


@pytest.fixture
def own(tmp_path: Path, jar_folder: Path) -> Iterator[Broker]:
    with running(Broker(tmp_path / "own", jar_folder=jar_folder)) as broker:
        yield broker


def ids(cluster: Cluster, topic: str) -> list[str]:
    return [json.loads(record.value)["id"] for record in everything(cluster, topic)]


def lines(number: int) -> tuple[list[str], bytes]:
    made = [uuid.uuid4().hex for _ in range(number)]
    return made, b"\n".join(json.dumps({"id": one, "prompt": CANARY}).encode() for one in made)


def test_the_command_from_a_token_to_the_topic(
    engine: Engine, cluster: Cluster, topic: str, postgres_database: str, tmp_path: Path
) -> None:
    made = awry("tokens", "create", "gateway", "--scope", "ingest", "--database-url", postgres_database)
    assert made.returncode == 0, made.stderr
    process = IngestProcess(tmp_path, postgres_database, kafka_bootstrap=cluster.bootstrap, ingest_topic=topic)
    try:
        with client(process.url, made.stdout.strip()) as http:
            sent, body = lines(3)
            answer = http.post("/v1/ingest", content=body, headers={"Content-Type": "application/x-ndjson"})
            assert answer.json() == {"accepted": 3}
            assert answer.headers["server"] == "awry"
            assert http.get("/readyz").status_code == 200
            metrics = http.get("/metrics").text
        assert sorted(ids(cluster, topic)) == sorted(sent)
        assert "awry_ingest_messages_total 3.0" in metrics
        assert 'awry_ingest_requests_total{code="200",route="ingest"} 1.0' in metrics
    finally:
        assert process.stop() == 0
    assert CANARY not in process.log.read_text()


def test_without_kafka_into_the_spool_until_it_is_full(postgres_database: str, secret: str, tmp_path: Path) -> None:
    process = IngestProcess(tmp_path, postgres_database, spool_max_bytes=1_048_576)
    try:
        with client(process.url, secret) as http:
            assert http.post("/v1/ingest", json={"id": "a"}).status_code == 200
            assert http.post("/v1/traces", content=b"\x0a\x00", headers={"Content-Type": "application/x-protobuf"})
            spooled = [
                decode_line(line)
                for path in sorted((tmp_path / "spool").glob("*.jsonl"))
                for line in path.read_bytes().splitlines()
            ]
            assert [(one.payload, dict(one.headers).get("awry_format")) for one in spooled] == [
                (b'{"id":"a"}', None),
                (b"\x0a\x00", b"otlp-traces"),
            ]
            large = {"id": "b", "prompt": "x" * 200_000}
            codes = [http.post("/v1/ingest", json=large) for _ in range(8)]
            assert [one.status_code for one in codes][:3] == [200] * 3
            assert codes[-1].status_code == 503
            assert int(codes[-1].headers["retry-after"]) >= 10
            assert "spool is full" in codes[-1].json()["detail"]
            assert http.get("/readyz").status_code == 503
            assert http.post("/v1/ingest", json={"id": "small"}).status_code == 200
    finally:
        process.stop()


def test_the_embedded_broker_gets_its_topic(tmp_path: Path, jar_folder: Path) -> None:
    settings = load_settings(state_dir=tmp_path, source="kafka:one,two")
    assert topic_of(settings) == "one"
    with running(Broker(tmp_path / "kafka", jar_folder=jar_folder)) as broker:
        open_sink(settings).close()
        assert "one" in Cluster(broker.address).topics()


def test_another_cluster_has_it_already_or_not_at_all(cluster: Cluster, tmp_path: Path) -> None:
    settings = load_settings(state_dir=tmp_path, kafka_bootstrap=cluster.bootstrap, ingest_topic="nobody-made-it")
    with pytest.raises(ClusterError, match="ingest_topic: there is no topic nobody-made-it"):
        open_sink(settings)


def test_an_address_that_is_taken(postgres_database: str, tmp_path: Path) -> None:
    first = IngestProcess(tmp_path, postgres_database)
    try:
        address = first.url.removeprefix("http://")
        done = awry(
            "ingest", "--ingest-listen", address, "--database-url", postgres_database, "--state-dir", tmp_path / "b"
        )
        assert "is taken by another process" in refused(done)
    finally:
        first.stop()


def _wait_for_more(codes: list[int], code: int, number: int) -> None:
    before = codes.count(code)
    wait_for(lambda: codes.count(code) >= before + number, 60)


def test_a_broker_away_is_503_and_nothing_acknowledged_is_lost(
    own: Broker, postgres_database: str, secret: str, tmp_path: Path
) -> None:
    cluster = Cluster(own.address)
    topic = new_topic(cluster)
    process = IngestProcess(
        tmp_path, postgres_database, kafka_bootstrap=own.address, ingest_topic=topic, ingest_ack_seconds=2
    )
    safe: list[str] = []
    codes: list[int] = []
    stop = threading.Event()

    def send() -> None:
        with client(process.url, secret) as http:
            while not stop.is_set():
                made, body = lines(5)
                answer = http.post("/v1/ingest", content=body, headers={"Content-Type": "application/x-ndjson"})
                codes.append(answer.status_code)
                if answer.status_code == 200:
                    safe.extend(made)
                else:
                    assert answer.status_code == 503
                    assert int(answer.headers["retry-after"]) >= 1
                time.sleep(0.01)

    try:
        with ThreadPoolExecutor(4) as pool:
            senders = [pool.submit(send) for _ in range(4)]
            try:
                for end in (own.kill, own.stop):
                    _wait_for_more(codes, 200, 20)
                    end()
                    _wait_for_more(codes, 503, 4)
                    own.start()
                _wait_for_more(codes, 200, 20)
            finally:
                stop.set()
            for one in senders:
                one.result()
        assert set(safe) <= set(ids(cluster, topic))
        assert httpx2.get(process.url + "/readyz").status_code == 200
    finally:
        process.stop()
    assert CANARY not in process.log.read_text()


def test_killed_at_any_point_every_acknowledged_message_is_in_the_topic(
    cluster: Cluster, topic: str, postgres_database: str, secret: str, tmp_path: Path
) -> None:
    draw = random.Random(7)
    safe: list[str] = []
    for _ in range(4):
        process = IngestProcess(tmp_path, postgres_database, kafka_bootstrap=cluster.bootstrap, ingest_topic=topic)
        stop = threading.Event()

        def send(url: str = process.url, stop: threading.Event = stop) -> None:
            with client(url, secret) as http:
                while not stop.is_set():
                    made, body = lines(20)
                    try:
                        answer = http.post("/v1/ingest", content=body, headers={"Content-Type": "application/x-ndjson"})
                    except httpx2.HTTPError:
                        return
                    if answer.status_code == 200:
                        safe.extend(made)

        before = len(safe)
        with ThreadPoolExecutor(6) as pool:
            senders = [pool.submit(send) for _ in range(6)]
            wait_for(lambda: len(safe) > before + 200, 30)  # noqa: B023 - waited for within the round
            time.sleep(draw.uniform(0, 0.05))
            process.kill()
            stop.set()
            for one in senders:
                one.result()
    assert len(safe) > 800
    assert set(safe) <= set(ids(cluster, topic))


def test_stopping_answers_what_was_begun(
    cluster: Cluster, topic: str, postgres_database: str, secret: str, tmp_path: Path
) -> None:
    process = IngestProcess(tmp_path, postgres_database, kafka_bootstrap=cluster.bootstrap, ingest_topic=topic)
    with client(process.url, secret) as http, ThreadPoolExecutor(1) as pool:
        made, body = lines(2)
        stopping = threading.Event()

        def slowly() -> Iterator[bytes]:
            yield body[:50]
            assert stopping.wait(60)
            time.sleep(0.5)
            yield body[50:]

        def begun() -> bool:
            found = re.search(r"^awry_ingest_bytes_in_flight (\S+)$", http.get("/metrics").text, re.MULTILINE)
            return found is not None and float(found[1]) > 0

        asked = pool.submit(http.post, "/v1/ingest", content=slowly(), headers={"Content-Type": "application/x-ndjson"})
        wait_for(begun)
        stopping.set()
        assert process.stop() == 0
        assert asked.result().json() == {"accepted": 2}
    assert sorted(ids(cluster, topic)) == sorted(made)
