"""`awry ingest` as a process: the sink that the settings name, tokens, and one HTTP server.

Contract: within `serving(settings, engine)` requests are answered; at the end of the block those in progress get a few
seconds, then the sink finishes what it holds. Records go to Kafka where `kafka_bootstrap` is set or an embedded broker
runs in the state folder when the process starts, else to the spool in the state folder. There is no TLS: listen on
loopback, or behind a TLS proxy, as for `awry serve`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from sqlalchemy import Engine

from monitor.ingest.app import Limits, Receiver, make_app
from monitor.ingest.sinks import Sink
from monitor.settings import Settings
from monitor.stream.wiring import cluster_of, topics_of
from monitor.telemetry.http_server import bind, format_address, parse_address, running
from monitor.telemetry.metrics import BUILD_INFO
from monitor.web.auth.cache import TokenCache
from monitor.web.auth.rate_limit import Limiter

SPOOL_FOLDER = "spool"
DEFAULT_TOPIC = "llm.traffic"

_STOP_SECONDS = 10
# Of a topic that is made in the embedded broker.
_PARTITIONS = 4


@dataclass(frozen=True)
class Running:
    """A server: its real HOST:PORT, and where records go, for people."""

    address: str
    target: str


@contextmanager
def serving(settings: Settings, engine: Engine) -> Iterator[Running]:
    """Answer on `ingest_listen` until the block ends."""
    host, port = parse_address(settings.ingest_listen)
    listener = bind(host, port)
    address = format_address(host, listener.getsockname()[1])
    BUILD_INFO.labels(version("awry")).set(1)
    try:
        sink = open_sink(settings)
    except BaseException:
        listener.close()
        raise
    tokens = TokenCache(engine, Limiter(), keep_seconds=settings.ingest_token_cache_seconds)
    limits = Limits(
        max_request_bytes=settings.ingest_max_request_bytes,
        max_bytes=settings.ingest_max_bytes,
        body_seconds=settings.ingest_body_seconds,
        ack_seconds=settings.ingest_ack_seconds,
    )
    app = make_app(Receiver(sink, tokens, limits), sink)
    try:
        with running(
            app,
            listener,
            name="ingest",
            stop_seconds=_STOP_SECONDS,
            server_header="awry",
            max_connections=settings.ingest_max_connections,
            # The application answers 408 first.
            body_seconds=settings.ingest_body_seconds + 5,
        ):
            yield Running(address, sink.name)
    finally:
        sink.close()
        tokens.close()


def open_sink(settings: Settings) -> Sink:
    """Raises ClusterError where Kafka does not answer, or has no such topic."""
    if not _has_kafka(settings):
        from monitor.ingest.spool import SpoolSink

        return SpoolSink(settings.state_dir / SPOOL_FOLDER, settings.spool_max_bytes)
    from monitor.ingest.kafka import KafkaSink, connect_producer

    cluster, topic = cluster_of(settings), topic_of(settings)
    if settings.kafka_bootstrap is None:
        cluster.create_topics([topic], _PARTITIONS)
    cluster.check_topics([topic], "ingest_topic")
    connect = partial(
        connect_producer,
        cluster,
        topic,
        ack_seconds=settings.ingest_ack_seconds,
        max_bytes=settings.ingest_max_request_bytes,
    )
    return KafkaSink(connect, cluster, topic, ack_seconds=settings.ingest_ack_seconds)


def topic_of(settings: Settings) -> str:
    """Where records go in Kafka."""
    return settings.ingest_topic or next(iter(topics_of(settings)), DEFAULT_TOPIC)


def _has_kafka(settings: Settings) -> bool:
    from monitor.stream.kafka.embedded import running_address

    return settings.kafka_bootstrap is not None or running_address(settings.state_dir / "kafka") is not None
