"""docs/gateways: the lines of each page work as they stand, with the real clients, and what they send is read.

Blocks of a page are run as they stand; only addresses of loopback are exchanged for those of the test. Clients run in
environments of their own. The services behind them are on loopback, and every other address is behind a proxy that is
not there. What arrives in the spool or the topic is read as the worker reads it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from monitor.stream.kafka.client import Cluster
from monitor.stream.parse import ParseOptions, Parser, parse
from monitor.stream.wire import WireMessage
from monitor.telemetry.http_server import bind
from tests.conftest import needs_program
from tests.docs import test_readme
from tests.docs.test_links import broken, links
from tests.support import ROOT
from tests.support.ingest.model_service import ANSWER, serving_models
from tests.support.ingest.pages import Place, blocks, holding
from tests.support.ingest.process import IngestProcess
from tests.support.ingest.topic import everything
from tests.support.stream.client_venv import client_python
from tests.support.stream.kafka import consume, produce, wait_for

PAGES = sorted((ROOT / "docs" / "gateways").glob("*.md"))

LITELLM = ("litellm==1.110.2",)
LITELLM_PROXY = (
    "litellm[proxy]==1.108.7",
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-exporter-otlp-proto-http==1.45.2",
)
PROVIDERS = ("openai==3.57.0", "anthropic==2.14.0")
OTEL = (
    "openai==3.57.0",
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-exporter-otlp-proto-http==1.45.2",
    "opentelemetry-instrumentation-genai-openai==1.3b0",
)
KAFKA_PYTHON = ("kafka-python==3.0.12",)

QUESTION = {"role": "user", "content": "How do I keep bread fresh?"}
MASTER_KEY = "sk-of-a-test-0123456789abcdef0123456789abcdef0123456789"

# Records that a Collector 0.165 wrote: of its exporter `kafka`, one span (otlp_proto) and one log event (otlp_json).
COLLECTOR_SPAN = base64.b64decode(
    "CrsDEs8BEsQBegBKHxIGCgRjaGF0ChVnZW5fYWkub3BlcmF0aW9uLm5hbWVKXxJGCkRbeyJyb2xlIjogInVzZXIiLCAicGFydHMiOiBbeyJ0eXBl"
    "IjogInRleHQiLCAiY29udGVudCI6ICJzcGFuLTAifV19XQoVZ2VuX2FpLmlucHV0Lm1lc3NhZ2VzQdk2R1YfTOwYOZuoRlYfTOwYMAEqBmNoYXQg"
    "bYUBAAEAACIAEghOWaJmN5hNjAoQYOcUhSRhLnPIhovWoNphCgoGCgR0ZXN0CuYBCiISCAoGcHl0aG9uChZ0ZWxlbWV0cnkuc2RrLmxhbmd1YWdl"
    "CiUSDwoNb3BlbnRlbGVtZXRyeQoSdGVsZW1ldHJ5LnNkay5uYW1lCiESCAoGMS40NS4yChV0ZWxlbWV0cnkuc2RrLnZlcnNpb24KPRImCiQ3NmQ3"
    "NjYwMC03NWE5LTQ2NjAtYTZmNC1kZWUwZDc1ZmM4MWYKE3NlcnZpY2UuaW5zdGFuY2UuaWQKGhIKCghzaG9wLWJvdAoMc2VydmljZS5uYW1lChsS"
    "BgoEc2hvcAoRc2VydmljZS5uYW1lc3BhY2U="
)
COLLECTOR_EVENT = (
    b'{"resourceLogs":[{"resource":{"attributes":[{"key":"service.namespace","value":{"stringValue":"shop"}}]},'
    b'"scopeLogs":[{"scope":{"name":"test"},"logRecords":[{"observedTimeUnixNano":"1795894048892461655",'
    b'"severityNumber":9,"body":{},"attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},'
    b'{"key":"gen_ai.input.messages","value":{"stringValue":"[{\\"role\\": \\"user\\", \\"parts\\": [{\\"type\\": '
    b'\\"text\\", \\"content\\": \\"span-77\\"}]}]"}}],"eventName":"gen_ai.client.inference.operation.details"}]}]}]}'
)


@pytest.fixture
def service() -> Iterator[tuple[str, list[str]]]:
    with serving_models() as served:
        yield served


@pytest.fixture
def place(tmp_path: Path, postgres_database: str, service: tuple[str, list[str]]) -> Iterator[Place]:
    """With `awry ingest` into a spool, and a token made by the page's first line."""
    process = IngestProcess(tmp_path, postgres_database)
    made = Place(tmp_path, AWRY_DATABASE_URL=postgres_database, AWRY_STATE_DIR=str(tmp_path))
    made.changes = {"127.0.0.1:4318": process.url.removeprefix("http://"), "127.0.0.1:8000": service[0]}
    made.shell(next(line for line in blocks("openai", "sh")[0].splitlines() if "tokens create" in line))
    try:
        yield made
    finally:
        process.stop()


def told(message: WireMessage, **expected: Any) -> None:
    """Its turns and response are the page's, and what else is expected."""
    assert message.turns[-1] == QUESTION
    assert message.response == ANSWER
    assert {name: getattr(message, name) for name in expected} == expected


@pytest.mark.slow
def test_litellms_sdk(place: Place) -> None:
    place.python(holding("litellm", "python", "GenericAPILogger"), client_python(*LITELLM))
    (message,) = place.arrived()
    told(message, format="litellm", id="chatcmpl-1", tenant="shop", user="ann", conversation_id="c-17")


@pytest.mark.slow
@pytest.mark.timeout(900)  # its environment is installed the first time
@pytest.mark.parametrize("callback", ["awry", "otel"])
def test_litellms_proxy(place: Place, callback: str) -> None:
    python = client_python(*LITELLM_PROXY)
    with bind("127.0.0.1", 0) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    place.changes |= {"--port 4000": "--port " + address.partition(":")[2]}
    place.environment |= {"LITELLM_MASTER_KEY": MASTER_KEY, "OPENAI_API_KEY": "none"}
    config = yaml.safe_load(place.text(holding("litellm", "yaml", "callback_settings")))
    lines = holding("litellm", "sh", "litellm --config")
    if callback == "otel":
        config = {**config, "litellm_settings": {"callbacks": ["otel"]}}
        del config["callback_settings"]
        lines = holding("litellm", "sh", "OTEL_EXPORTER_OTLP_ENDPOINT") + lines
    (place.folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    proxy = place.start(lines, python)
    try:
        with httpx2.Client(base_url=f"http://{address}", trust_env=False, timeout=20) as client:
            client.headers["Authorization"] = f"Bearer {MASTER_KEY}"
            wait_for(lambda: proxy.poll() is not None or _alive(client), 240)
            assert proxy.poll() is None, proxy.communicate()[0]
            request = {"model": "chat", "messages": [QUESTION], "user": "ann", "metadata": {"session_id": "c-17"}}
            for streamed in (False, True):
                answer = client.post("/v1/chat/completions", json={**request, "stream": streamed})
                assert answer.status_code == 200, answer.text
        wait_for(lambda: len(place.arrived()) >= 2, 30)
    finally:
        os.killpg(proxy.pid, signal.SIGKILL)
        proxy.communicate()
    found = place.arrived()
    assert len(found) == 2
    for message in found:
        if callback == "otel":
            told(message, format="otlp", id="chatcmpl-1")
        else:
            told(message, format="litellm", id="chatcmpl-1", user="ann", conversation_id="c-17")


def _alive(client: httpx2.Client) -> bool:
    try:
        return client.get("/health/liveliness").status_code == 200
    except httpx2.TransportError:
        return False


# More of the same client than the page shows: what it says of streams, of asyncio, of the file, of a refused token.
MORE = """
import asyncio
from audit import ToFile

async def main(keep):
    inner = Audited(keep, httpx.AsyncHTTPTransport())
    async with openai.AsyncOpenAI(
        base_url="http://127.0.0.1:8000/v1", api_key="none", http_client=httpx.AsyncClient(transport=inner)
    ) as client:
        await client.chat.completions.create(model="async", messages=QUESTION)
        async for _ in await client.chat.completions.create(model="async-streamed", messages=QUESTION, stream=True):
            pass

QUESTION = [{"role": "user", "content": "How do I keep bread fresh?"}]
keep = ToFile("pairs.jsonl")
asyncio.run(main(keep))
options = {"api_key": "none", "max_retries": 0}
transport = Audited(keep, httpx.HTTPTransport())
for base_url, model in (("http://127.0.0.1:8000/fail", "failed"), ("http://127.0.0.1:9/v1", "away")):
    client = openai.OpenAI(base_url=base_url, http_client=httpx.Client(transport=transport), **options)
    try:
        client.chat.completions.create(model=model, messages=QUESTION)
    except (openai.APIConnectionError, openai.InternalServerError):
        continue
    raise AssertionError(model)
client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", http_client=httpx.Client(transport=transport), **options)
for _ in client.chat.completions.create(model="streamed", messages=QUESTION, stream=True):
    pass
refused = ToAwry("http://127.0.0.1:4318/v1/ingest", "awry_" + "0" * 64)
refused({"prompt": "nobody reads this"})
refused.flush()
"""


@pytest.mark.slow
def test_openais_client(place: Place, service: tuple[str, list[str]]) -> None:
    python = client_python(*PROVIDERS)
    (place.folder / "audit.py").write_text(holding("openai", "python", "class Audited"), encoding="utf-8")
    said = place.python(holding("openai", "python", "openai.OpenAI(") + MORE, python)
    assert said.startswith(ANSWER)
    assert "refused a message: 401" in said
    (message,) = place.arrived()
    told(message, format="openai_chat", id="chatcmpl-1", tenant="shop", user="ann", conversation_id="c-17")
    assert message.timestamp is not None
    lines = (place.folder / "pairs.jsonl").read_bytes().splitlines()
    kept = {each.model: each for line in lines for each in parse(line) if isinstance(each, WireMessage)}
    for model in ("async", "async-streamed", "streamed"):
        told(kept.pop(str(model)), model=model, id="chatcmpl-1")
    # A request that nobody answered is one that somebody made.
    assert {model: each.response for model, each in kept.items()} == {"failed": None, "away": None}
    assert service[1] == []
    checked = place.shell(holding("openai", "sh", "awry check pairs.jsonl").splitlines()[0])
    assert "5 messages in 5 records: 5 readable" in checked


@pytest.mark.slow
def test_a_gateway_that_posts_both_bodies(place: Place) -> None:
    needs_program("curl", "apt-get install curl")
    place.shell(holding("openai", "sh", "curl"))
    (message,) = place.arrived()
    told(message, format="openai_chat", id="chatcmpl-7", tenant="shop", conversation_id="c-17", model="my-model")
    assert "1 messages in 1 records: 1 readable" in place.shell(holding("openai", "sh", "awry check spool"))


@pytest.mark.slow
def test_anthropics_client(place: Place, service: tuple[str, list[str]]) -> None:
    (place.folder / "audit.py").write_text(holding("openai", "python", "class Audited"), encoding="utf-8")
    place.environment |= {"ANTHROPIC_BASE_URL": f"http://{service[0]}", "ANTHROPIC_API_KEY": "none"}
    said = place.python(holding("anthropic", "python", "anthropic.Anthropic("), client_python(*PROVIDERS))
    assert said.replace("\n", "") == ANSWER * 2
    first, second = place.arrived()
    told(first, format="anthropic", id="msg_1", tenant="shop", user="ann", conversation_id="c-17", model="claude-x")
    assert first.turns[0] == {"role": "system", "content": "Be brief."}
    assert (second.format, second.tenant, second.response) == ("anthropic", "shop", ANSWER)
    assert second.turns == [{"role": "user", "content": "And for a week?"}]
    assert service[1] == []


@pytest.mark.slow
def test_opentelemetrys_instrumentation(place: Place) -> None:
    exports = holding("opentelemetry", "sh", "OTEL_EXPORTER_OTLP_ENDPOINT")
    block = holding("opentelemetry", "python", "OTLPSpanExporter")
    assert place.python(block, client_python(*OTEL), exports).strip() == ANSWER
    (message,) = place.arrived()
    told(message, format="otlp", id="chatcmpl-1", tenant="shop", user="ann", conversation_id="c-17", model="my-model")
    assert message.trace_id is not None


def test_what_the_collector_writes_to_kafka(cluster: Cluster, topic: str) -> None:
    to_kafka = yaml.safe_load(holding("opentelemetry", "yaml", "brokers"))["exporters"]["kafka/awry"]
    written = {"otlp_proto": COLLECTOR_SPAN, "otlp_json": COLLECTOR_EVENT}
    assert {to_kafka["traces"]["encoding"], to_kafka["logs"]["encoding"]} == set(written)
    produce(cluster, topic, written.values())
    read = [each for record in everything(cluster, topic) for each in parse(record.value, record.headers)]
    assert {str(each.turns[-1]["content"]) for each in read if isinstance(each, WireMessage)} == {"span-0", "span-77"}
    assert {(each.format, each.tenant) for each in read} == {("otlp", "shop")}


@pytest.mark.parametrize("name", ["awry ingest", "Kafka"])
def test_configurations_of_the_collector_lead_all_pipelines_to_awry(name: str) -> None:
    word = "brokers" if name == "Kafka" else "Authorization"
    config = yaml.safe_load(holding("opentelemetry", "yaml", word))
    (exporter,) = config["exporters"]
    pipelines = config["service"]["pipelines"]
    assert {kind: each["exporters"] for kind, each in pipelines.items()} == {"traces": [exporter], "logs": [exporter]}
    assert {receiver for each in pipelines.values() for receiver in each["receivers"]} == set(config["receivers"])


@pytest.fixture
def at_kafka(tmp_path: Path, cluster: Cluster, topic: str) -> Place:
    made = Place(tmp_path, AWRY_KAFKA_BOOTSTRAP=cluster.bootstrap)
    made.changes = {"127.0.0.1:9092": cluster.bootstrap, "llm.traffic": topic}
    return made


@pytest.mark.slow
def test_a_producer_in_python(at_kafka: Place, cluster: Cluster, topic: str) -> None:
    at_kafka.python(holding("kafka", "python", "KafkaProducer"), client_python(*KAFKA_PYTHON))
    (record,) = consume(cluster, topic, 1)
    assert record.key == b"shop"
    (message,) = parse(record.value, record.headers)
    assert isinstance(message, WireMessage)
    told(message, format="openai_chat", id="chatcmpl-7", tenant="shop", user="ann", conversation_id="c-17")
    assert message.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    said = at_kafka.shell(holding("kafka", "sh", "awry check kafka:llm.traffic"))
    assert "1 messages in 1 records: 1 readable" in said
    assert "tenant=shop" in said


@pytest.mark.slow
def test_a_producer_in_the_shell(at_kafka: Place, cluster: Cluster, topic: str) -> None:
    needs_program("kcat", "apt-get install kcat")
    lines = [{"tenant": "shop", "messages": [QUESTION], "response": ANSWER}] * 2
    (at_kafka.folder / "messages.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    for block in blocks("kafka", "sh"):
        if block.startswith("kcat"):
            at_kafka.shell(block)
    records = consume(cluster, topic, 4)
    read = [each for record in records for each in parse(record.value, record.headers)]
    assert {record.key for record in records} == {b"shop"}
    assert sorted(str(each.id) for each in read if isinstance(each, WireMessage)) == [
        *["None"] * 2,
        *["order-4711"] * 2,
    ]
    for message in read:
        assert isinstance(message, WireMessage)
        told(message, format="awry", tenant="shop")


@pytest.mark.slow
def test_another_shape_by_a_mapping(at_kafka: Place, cluster: Cluster, topic: str) -> None:
    settings, line = holding("kafka", "toml", "[mapping]"), holding("kafka", "json", "event_id")
    (at_kafka.folder / "awry.toml").write_text(settings)
    produce(cluster, topic, [line.strip().encode()])
    said = at_kafka.shell(holding("kafka", "sh", "awry check kafka:llm.traffic"))
    assert "mapping" in said
    assert "id=e-1  tenant=shop  conversation=c-17" in said
    expressions = dict(re.findall(r'^(\w+) = "(.+)"$', settings, re.MULTILINE))
    (message,) = Parser(ParseOptions(mapping=expressions))(line.encode())
    assert isinstance(message, WireMessage)
    told(message, format="mapping", id="e-1", tenant="shop", conversation_id="c-17")
    assert message.timestamp is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_links_exist(page: Path) -> None:
    test_readme.test_every_command_and_flag_exists(str(page.relative_to(ROOT)), 4)
    text = page.read_text(encoding="utf-8")
    assert {target: fault for target in links(text) if (fault := broken(page, target))} == {}
    assert len(text.splitlines()) <= 280


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_of_a_page_is_tried(page: Path) -> None:
    """No block of a language that the tests above do not run or read."""
    languages = set(re.findall(r"^```(\w+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert languages <= {"sh", "python", "yaml", "toml", "json"}
    for block in blocks(page.stem, "python"):
        compile(block, page.name, "exec")
