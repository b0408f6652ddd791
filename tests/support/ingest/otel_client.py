"""Run by tests in OpenTelemetry's own environment: its SDK and exporters send to the address in argv[1].

`otel_client.py URL SECRET COMPRESSION COUNT`: so many spans of a GenAI call, and a log event, each exported on its own.
Prints how many exports the SDK counts as failed, at the end.
"""

import logging
import sys
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber  # type: ignore[import-not-found,unused-ignore]
from opentelemetry.exporter.otlp.proto.http import Compression  # type: ignore[import-not-found,unused-ignore]
from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # type: ignore[import-not-found,unused-ignore]
    OTLPLogExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[import-not-found,unused-ignore]
    OTLPSpanExporter,
)
from opentelemetry.sdk._logs import LoggerProvider  # type: ignore[import-not-found,unused-ignore]
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor  # type: ignore[import-not-found,unused-ignore]
from opentelemetry.sdk.trace import TracerProvider  # type: ignore[import-not-found,unused-ignore]
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # type: ignore[import-not-found,unused-ignore]

MESSAGES = '[{"role": "user", "parts": [{"type": "text", "content": "span-%d"}]}]'


class Failures(logging.Handler):
    """The SDK only logs what it gave up."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.number = 0

    def emit(self, _: logging.LogRecord) -> None:
        self.number += 1


def main(url: str, secret: str, compression: str, count: int) -> None:
    failures = Failures()
    logging.getLogger("opentelemetry").addHandler(failures)
    options: Any = {
        "headers": {"Authorization": f"Bearer {secret}"},
        "compression": Compression(compression),
        "timeout": 30,
    }
    spans, logs = TracerProvider(), LoggerProvider()
    spans.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces", **options)))
    logs.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(endpoint=f"{url}/v1/logs", **options)))
    for n in range(count):
        with spans.get_tracer("test").start_as_current_span("chat m") as span:
            span.set_attribute("gen_ai.operation.name", "chat")
            span.set_attribute("gen_ai.input.messages", MESSAGES % n)
    logs.get_logger("test").emit(
        LogRecord(
            event_name="gen_ai.client.inference.operation.details",
            severity_number=SeverityNumber.INFO,
            attributes={"gen_ai.operation.name": "chat", "gen_ai.input.messages": MESSAGES % 77},
        )
    )
    spans.shutdown()
    logs.shutdown()
    print(failures.number)


main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
