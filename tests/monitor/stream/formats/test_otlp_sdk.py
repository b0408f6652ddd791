"""What OpenTelemetry's own SDK and exporters send over HTTP is read: spans and log events, gzip and not."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from monitor.stream.parse import parse
from monitor.stream.wire import WireMessage
from tests.support.stream.loopback import receiving

RESOURCE = Resource.create({"service.name": "shop", "service.namespace": "web"})
INPUT: Any = [{"role": "user", "parts": [{"type": "text", "content": "How do I bake bread?"}]}]
OUTPUT: Any = [{"role": "assistant", "parts": [{"type": "text", "content": "With flour."}], "finish_reason": "stop"}]


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_spans(compression: Compression) -> None:
    with receiving() as (address, bodies):
        provider = TracerProvider(resource=RESOURCE)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address, compression=compression)))
        tracer = provider.get_tracer("test")
        with tracer.start_as_current_span("POST /ask"):
            for number in range(3):
                with tracer.start_as_current_span("chat gpt") as span:
                    span.set_attribute("gen_ai.operation.name", "chat")
                    span.set_attribute("gen_ai.request.model", "gpt")
                    span.set_attribute("gen_ai.conversation.id", f"c{number}")
                    span.set_attribute("gen_ai.input.messages", json.dumps(INPUT))
                    span.set_attribute("gen_ai.output.messages", json.dumps(OUTPUT))
        provider.shutdown()
    (body,) = bodies
    assert (body[:2] == b"\x1f\x8b") == (compression is Compression.Gzip)
    messages = parse(body)
    assert len(messages) == 3
    for number, message in enumerate(messages):
        assert isinstance(message, WireMessage)
        assert message.turns == [{"role": "user", "content": "How do I bake bread?"}]
        assert (message.response, message.model, message.tenant) == ("With flour.", "gpt", "web")
        assert message.conversation_id == f"c{number}"
        assert message.timestamp is not None
    assert parse(gzip.decompress(body) if compression is Compression.Gzip else body) == messages


def test_log_events() -> None:
    with receiving() as (address, bodies):
        provider = LoggerProvider(resource=RESOURCE)
        provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(endpoint=address)))
        logger = provider.get_logger("test")
        logger.emit(
            LogRecord(
                timestamp=1_700_000_000_000_000_000,
                event_name="gen_ai.client.inference.operation.details",
                attributes={
                    "gen_ai.operation.name": "chat",
                    "gen_ai.input.messages": INPUT,
                    "gen_ai.output.messages": OUTPUT,
                },
            )
        )
        logger.emit(LogRecord(timestamp=1, body="a line of another log"))
        provider.shutdown()
    (message,) = [each for body in bodies for each in parse(body)]
    assert isinstance(message, WireMessage)
    assert message.turns == [{"role": "user", "content": "How do I bake bread?"}]
    assert message.response == "With flour."
