"""Kafka: its brokers answer, the topics are there, the group has offsets and is not far behind.

Contract: asks where a setting names Kafka, else says nothing. Joins no group, reads no record, commits nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from monitor.doctor.finding import Finding, fault, ok, warning
from monitor.errors import ClusterError, SettingsError
from monitor.settings import Settings

if TYPE_CHECKING:
    from monitor.stream.kafka.client import Cluster

_PREFIX = "kafka:"
_FAR_BEHIND = 10_000


def kafka(settings: Settings) -> Iterator[Finding]:
    """The cluster and the topics of the settings, and the consumer group of the source."""
    from monitor.stream.wiring import cluster_of, topics_of

    sources = topics_of(settings)
    wanted = _topics(settings, sources)
    if not wanted and settings.kafka_bootstrap is None:
        return
    try:
        cluster = cluster_of(settings)
        there = cluster.topics()
    except (ClusterError, SettingsError) as error:
        do = "correct kafka_bootstrap, kafka_security_protocol, kafka_sasl_* and kafka_ssl_*, or start the brokers"
        yield fault("kafka", str(error).removeprefix("kafka_bootstrap: "), do)
        return
    yield ok("kafka", f"{cluster.bootstrap} answers, {len(there)} topics")
    for topic, setting in wanted.items():
        if topic in there:
            yield ok("topic", f"{topic} is there ({setting})")
        else:
            yield fault("topic", f"there is no topic {topic} ({setting})", "create it: awry creates no topics")
    followed = [topic for topic in sources if topic in there]
    if followed:
        try:
            yield from _group(cluster, settings, followed)
        except ClusterError as error:
            yield fault("group", str(error), "allow the user to describe the group and its topics")


def _topics(settings: Settings, sources: list[str]) -> dict[str, str]:
    """Topics, with the setting that names each."""
    from monitor.stream.wiring import outputs_of

    wanted = dict.fromkeys(sources, "source")
    for setting, out in outputs_of(settings).items():
        if out.startswith(_PREFIX):
            wanted.setdefault(out.removeprefix(_PREFIX), setting)
    if settings.ingest_topic is not None:
        wanted.setdefault(settings.ingest_topic, "ingest_topic")
    return wanted


def _group(cluster: Cluster, settings: Settings, topics: list[str]) -> Iterator[Finding]:
    group = settings.kafka_group
    committed, ends = cluster.committed(group), cluster.ends(topics)
    without = [topic for topic in topics if not any(partition.topic == topic for partition in committed)]
    if without and settings.start_from is None:
        do = "say where to start: awry run --from earliest, latest or a time"
        yield fault("group", f"{group} has no offsets on {', '.join(without)}", do)
    elif without:
        yield ok("group", f"{group} has no offsets on {', '.join(without)}; it starts from {settings.start_from}")
    lag = sum(max(0, end - committed[at]) for at, end in ends.items() if at in committed)
    members = cluster.members(group)
    if len(without) < len(topics):
        found = f"{group} has {members} members and is {lag} messages behind"
        if lag and not members:
            yield warning("group", found, "start awry run: nobody reads")
        elif lag >= _FAR_BEHIND:
            yield warning("group", found, "see Lag on the dashboard worker; more workers, up to one a partition")
        else:
            yield ok("group", found)
