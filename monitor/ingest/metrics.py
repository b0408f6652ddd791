"""Metrics of `awry ingest`: what `/metrics` of that process shows beside the others."""

from __future__ import annotations

from monitor.telemetry.metrics import _counter, _gauge, _histogram

INGEST_ROUTES = ("traces", "logs", "litellm", "ingest")
INGEST_CODES = ("200", "400", "401", "403", "408", "413", "415", "429", "499", "500", "503")

# awry ingest.
INGEST_REQUESTS = _counter(
    "awry_ingest_requests_total",
    "requests",
    "Requests to awry ingest, by status; 499: the client went away before its response",
    route=INGEST_ROUTES,
    code=INGEST_CODES,
)
INGEST_MESSAGES = _counter(
    "awry_ingest_messages_total", "messages", "Records that Kafka or the spool acknowledged; an OTLP request is one"
)
INGEST_OVERSIZE = _counter(
    "awry_ingest_oversize_total",
    "messages",
    "Records over the topic's max.message.bytes: a note of their size was written instead",
)
INGEST_BYTES_IN_FLIGHT = _gauge(
    "awry_ingest_bytes_in_flight", "bytes", "Bytes of requests that awry ingest holds, against ingest_max_bytes"
)
INGEST_SECONDS = _histogram(
    "awry_ingest_seconds",
    "seconds",
    "Time from a request's headers to its response",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    route=INGEST_ROUTES,
)
