"""Real clients over loopback: OpenTelemetry's SDK, LiteLLM's callback; requests as OpenAI's and Anthropic's make them.

Each client is a program in an environment of its own (`tests.support.stream.client_venv`); all speak to loopback
alone. What they sent is read as the worker would read it.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine

from monitor.ingest.kafka import KafkaSink, connect_producer
from monitor.ingest.refused import SinkError
from monitor.stream.kafka.client import Cluster
from monitor.stream.parse import parse
from monitor.stream.wire import WireMessage
from tests.support import ROOT
from tests.support.ingest.receiver import HeldSink, client, receiving
from tests.support.ingest.topic import everything
from tests.support.stream.client_venv import client_python
from tests.support.stream.recording import recording

# Environments of clients are installed the first time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OTEL = ("opentelemetry-sdk==1.45.2", "opentelemetry-exporter-otlp-proto-http==1.45.2")
LITELLM = "litellm==1.110.2"
PROVIDERS = ("openai==3.57.0", "anthropic==2.14.0")


def run(python: Path, script: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [str(python), str(ROOT / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "OTEL_SDK_DISABLED": "false", "NO_PROXY": "127.0.0.1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def texts_of(sink: HeldSink) -> list[str]:
    """The last turn of each message, as the worker reads it."""
    read = [each for record in sink.records for each in parse(record.value, record.headers)]
    return [str(each.turns[-1]["content"]) for each in read if isinstance(each, WireMessage)]


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_opentelemetrys_own_exporters(engine: Engine, sink: HeldSink, secret: str, compression: str) -> None:
    python = client_python(*OTEL)
    with receiving(engine, sink) as url:
        assert run(python, "tests/support/ingest/otel_client.py", url, secret, compression, "3").strip() == "0"
    assert texts_of(sink) == ["span-0", "span-1", "span-2", "span-77"]
    assert {dict(record.headers)["content-type"] for record in sink.records} == {b"application/x-protobuf"}


def test_opentelemetrys_exporter_comes_back_after_503(engine: Engine, sink: HeldSink, secret: str) -> None:
    python = client_python(*OTEL)
    sink.error = SinkError("Kafka did not acknowledge in time")
    refused: list[int] = []

    def mend() -> None:
        while not sink.records:
            time.sleep(0.01)
        refused.append(len(sink.records))
        time.sleep(0.5)
        sink.records.clear()
        sink.error = None

    mending = threading.Thread(target=mend)
    mending.start()
    with receiving(engine, sink) as url:
        assert run(python, "tests/support/ingest/otel_client.py", url, secret, "gzip", "2").strip() == "0"
    mending.join()
    assert refused
    assert texts_of(sink) == ["span-0", "span-1", "span-77"]


def test_opentelemetrys_exporter_with_a_wrong_token(engine: Engine, sink: HeldSink) -> None:
    python = client_python(*OTEL)
    with receiving(engine, sink) as url:
        failed = run(python, "tests/support/ingest/otel_client.py", url, "awry_" + "0" * 64, "gzip", "1")
    assert int(failed) >= 1
    assert sink.records == []


@pytest.mark.parametrize("log_format", ["json_array", "ndjson", "single"])
def test_litellms_own_callback(engine: Engine, sink: HeldSink, secret: str, log_format: str) -> None:
    python = client_python(LITELLM)
    with receiving(engine, sink) as url:
        run(
            python,
            "tests/support/stream/litellm_calls.py",
            f"{url}/v1/litellm",
            log_format,
            GENERIC_LOGGER_HEADERS=f"Authorization=Bearer {secret}",
        )
    assert len(sink.records) == 10
    read = [each for record in sink.records for each in parse(record.value, record.headers)]
    assert {each.format for each in read} == {"litellm"}
    scored = [each for each in read if isinstance(each, WireMessage)]
    assert len(scored) >= 8
    assert any("Weather in Rome?" in turn["content"] for each in scored for turn in each.turns)


def test_requests_of_openai_and_anthropic_posted_as_they_are(
    engine: Engine, cluster: Cluster, topic: str, secret: str
) -> None:
    python = client_python(*PROVIDERS)
    with recording({}) as api:
        run(python, "tests/support/ingest/provider_client.py", api.url)
    connect = partial(connect_producer, cluster, topic, ack_seconds=5.0, max_bytes=1_000_000)
    with (
        closing(KafkaSink(connect, cluster, topic, ack_seconds=5.0)) as sink,
        receiving(engine, sink) as url,
        client(url, secret) as http,
    ):
        for body in api.bodies:
            assert http.post("/v1/ingest", json=body).json() == {"accepted": 1}
        assert http.post("/v1/ingest", json=api.bodies).json() == {"accepted": 3}
        lines = "\n".join(map(json.dumps, api.bodies))
        answer = http.post("/v1/ingest", content=lines, headers={"Content-Type": "application/x-ndjson"})
        assert answer.json() == {"accepted": 3}
    read = [each for record in everything(cluster, topic) for each in parse(record.value, record.headers)]
    assert all(isinstance(each, WireMessage) for each in read), read
    texts = Counter(str(each.turns[-1]["content"]) for each in read if isinstance(each, WireMessage))
    assert texts == {"from openai": 3, "from responses": 3, "from anthropic": 3}


def test_a_browser_cannot_send(engine: Engine, sink: HeldSink) -> None:
    """A page of another site can post text without asking, but not with the header of a token."""
    with receiving(engine, sink) as url, client(url, None) as http:
        asked = http.options(
            "/v1/ingest",
            headers={
                "Origin": "https://evil.example",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization",
            },
        )
        assert asked.status_code == 405
        assert not [name for name in asked.headers if name.startswith("access-control")]
        answer = http.post("/v1/ingest", content=b"{}", headers={"Content-Type": "text/plain"})
        assert answer.status_code == 401
    assert sink.records == []
