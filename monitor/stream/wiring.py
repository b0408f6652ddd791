"""Opens the sources and sinks that the settings name: `kafka:TOPIC`, files, the spool of `awry ingest`, or `-`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.errors import OutputError, SettingsError, SourceError
from monitor.settings import Settings

if TYPE_CHECKING:
    from monitor.stream.kafka.client import Cluster
    from monitor.stream.parse import ParseOptions
    from monitor.stream.record import Record, Source
    from monitor.stream.sinks import Outputs, Sink

_PREFIX = "kafka:"
SPOOL = "spool"


def topics_of(settings: Settings) -> list[str]:
    """The topics of a Kafka source; empty for JSON lines."""
    if not settings.source.startswith(_PREFIX):
        return []
    topics = [t.strip() for t in settings.source.removeprefix(_PREFIX).split(",")]
    if not all(topics):
        raise SettingsError("source: kafka: needs the name of a topic: kafka:TOPIC")
    return topics


def cluster_of(settings: Settings) -> Cluster:
    """The cluster that the settings name, else the embedded one if it runs in the state folder."""
    from monitor.stream.kafka.client import Cluster
    from monitor.stream.kafka.embedded import running_address

    address = settings.kafka_bootstrap or running_address(settings.state_dir / "kafka")
    if address is None:
        raise SettingsError(
            f"kafka_bootstrap: not set, and no embedded Kafka runs in {settings.state_dir}; set it, or start awry kafka"
        )
    password, key_password = settings.kafka_sasl_password, settings.kafka_ssl_key_password
    return Cluster(
        bootstrap=address,
        security_protocol=settings.kafka_security_protocol,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_username=settings.kafka_sasl_username,
        sasl_password=password.get_secret_value() if password else None,
        ssl_ca_file=settings.kafka_ssl_ca_file,
        ssl_cert_file=settings.kafka_ssl_cert_file,
        ssl_key_file=settings.kafka_ssl_key_file,
        ssl_key_password=key_password.get_secret_value() if key_password else None,
    )


def check_source(settings: Settings) -> None:
    """Check before a model is loaded that the source exists, and that there is an offset to start from."""
    topics = topics_of(settings)
    if topics:
        from monitor.stream.kafka.start_offset import no_start_offset, parse_start

        cluster = cluster_of(settings)
        cluster.check_topics(topics, "source")
        if settings.start_from is not None:
            parse_start(settings.start_from)
            return
        for topic in sorted(set(topics) - cluster.topics_with_offsets(settings.kafka_group)):
            raise no_start_offset(settings.kafka_group, topic)
    elif settings.source not in ("-", SPOOL):
        check_files(settings)


def check_files(settings: Settings) -> None:
    """Check that the files of a source of JSON lines are there."""
    from monitor.stream import jsonl_files as files

    names = files.named(settings.source)
    for named in names:
        if not named.pattern and not Path(named.path).exists():
            raise SourceError(f"source: there is no file {named.path}")
    if not settings.follow and not files.find(names):
        raise SourceError(f"source: no file matches {settings.source}")


def parse_options(settings: Settings) -> ParseOptions:
    """How payloads are read. Raises SettingsError for a format that is not there."""
    from monitor.stream.formats import names
    from monitor.stream.parse import ParseOptions

    if settings.format not in ("auto", *names()):
        raise SettingsError(f"format: {settings.format} is none of auto, {', '.join(names())}")
    return ParseOptions(settings.format, settings.mapping, settings.readings)


def _reader(settings: Settings) -> Callable[[Record], Record]:
    from monitor.stream.parse import Parser, read_messages

    parser = Parser(parse_options(settings))
    return lambda record: read_messages(record, parser)


def open_source(settings: Settings, *, group: str | None = None, until_end: bool = False) -> Source:
    """The source; as a member of `group` instead of the live one where that is given."""
    topics = topics_of(settings)
    if settings.source == SPOOL:
        from monitor.stream.spool import SpoolSource

        return SpoolSource(
            settings.state_dir / SPOOL,
            max_bytes=settings.max_message_bytes,
            name=settings.source_name,
            follow=not until_end,
            read=_reader(settings),
            priority_tenants=settings.priority_tenants,
            prefetch_messages=settings.prefetch_messages,
        )
    if not topics:
        from monitor.stream.jsonl import JsonLines

        return JsonLines(
            settings.source,
            name=settings.source_name,
            follow=settings.follow,
            max_bytes=settings.max_message_bytes,
        )
    from monitor.stream.kafka.source import KafkaSource
    from monitor.stream.kafka.start_offset import parse_start

    return KafkaSource(
        cluster_of(settings),
        topics,
        group or settings.kafka_group,
        start_from=parse_start(settings.start_from) if settings.start_from else None,
        until_end=until_end,
        max_bytes=settings.max_message_bytes,
        fill_seconds=settings.batch_wait_seconds,
        read=_reader(settings),
        priority_tenants=settings.priority_tenants,
        prefetch_messages=max(settings.prefetch_messages, settings.batch_messages or 0),
        revoke_seconds=settings.revoke_seconds,
        stall_seconds=settings.stall_seconds,
    )


def outputs_of(settings: Settings) -> dict[str, str]:
    """The outputs that are written, by setting: a file, `-`, or kafka:TOPIC."""
    topics = topics_of(settings)
    dead = settings.dead_letters_out or (f"{_PREFIX}{topics[0]}.dead-letters" if topics else None)
    answers = settings.answers_out if settings.mitigate != "off" else None
    outputs = {"verdicts_out": settings.verdicts_out, "answers_out": answers, "dead_letters_out": dead}
    return {setting: out for setting, out in outputs.items() if out is not None and out != "none"}


def check_outputs(settings: Settings) -> None:
    """Check before a model is loaded that outputs can be written: OutputError, and ClusterError for a topic."""
    for setting, out in outputs_of(settings).items():
        if out.startswith(_PREFIX):
            cluster_of(settings).check_topics([out.removeprefix(_PREFIX)], setting)
        elif (why := unwritable(out)) is not None:
            raise OutputError(f"{setting}: {why}")


def unwritable(out: str) -> str | None:
    """Why an output cannot be written as a file; None where it can, and for standard output."""
    path = Path(out)
    if out == "-":
        return None
    if path.is_dir():
        return f"{out} is a folder; name a file"
    if not path.absolute().parent.is_dir():
        return f"cannot write {out}: there is no folder {path.absolute().parent}"
    return None if os.access(path if path.exists() else path.absolute().parent, os.W_OK) else f"cannot write {out}"


@contextmanager
def opened_outputs(settings: Settings) -> Iterator[Outputs]:
    """The sinks of this worker, closed at the end."""
    from monitor.stream.sinks import Outputs
    from monitor.stream.sinks.jsonl import JsonLinesSink

    sinks: list[Sink] = []
    producer = None

    def sink(setting: str) -> Sink | None:
        nonlocal producer
        out = outputs.get(setting)
        if out is None:
            return None
        if not out.startswith(_PREFIX):
            sinks.append(JsonLinesSink(out, setting))
            return sinks[-1]
        from monitor.stream.sinks.kafka import TopicSink, connect_producer

        topic, cluster = out.removeprefix(_PREFIX), cluster_of(settings)
        cluster.check_topics([topic], setting)
        producer = producer or connect_producer(cluster)
        sinks.append(TopicSink(producer, topic, setting))
        return sinks[-1]

    outputs = outputs_of(settings)
    try:
        yield Outputs(verdicts=sink("verdicts_out"), answers=sink("answers_out"), dead_letters=sink("dead_letters_out"))
    finally:
        for each in sinks:
            each.close()
        if producer is not None:
            from kafka.errors import KafkaError

            with suppress(KafkaError):  # what was not acknowledged has stopped the worker already
                producer.close(timeout=10)
