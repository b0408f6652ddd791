"""From settings to a stream: what is wrong with it is told before a model is loaded."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from monitor.errors import ClusterError, SettingsError, SourceError
from monitor.settings import Settings
from monitor.stream.kafka.client import Cluster
from monitor.stream.wiring import check_source, cluster_of, open_source, topics_of
from tests.support.stream.kafka import committed, new_topic, produce, read


def settings(cluster: Cluster, topics: str, group: str, **more: Any) -> Settings:
    return Settings(kafka_bootstrap=cluster.bootstrap, source=f"kafka:{topics}", kafka_group=group, **more)


@pytest.mark.parametrize(
    ("source", "topics"),
    [("kafka:a", ["a"]), ("kafka:a, b.c", ["a", "b.c"]), ("-", []), ("kafka.jsonl", []), ("folder/kafka:x", [])],
)
def test_the_topics_of_a_source(source: str, topics: list[str]) -> None:
    assert topics_of(Settings(source=source)) == topics


@pytest.mark.parametrize("source", ["kafka:", "kafka:a,", "kafka:,"])
def test_a_topic_without_a_name(source: str) -> None:
    with pytest.raises(SettingsError, match=r"^source: kafka: needs the name of a topic: kafka:TOPIC"):
        topics_of(Settings(source=source))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^source: there is no file nowhere\.jsonl"):
        check_source(Settings(source="nowhere.jsonl"))
    (tmp_path / "here.jsonl").touch()
    check_source(Settings(source="here.jsonl"))


def test_a_topic_that_is_not_there(cluster: Cluster, topic: str, group: str) -> None:
    with pytest.raises(ClusterError, match=r"^source: there is no topic nothing-such "):
        check_source(settings(cluster, f"{topic},nothing-such", group, start_from="earliest"))


def test_a_group_that_knows_not_where_to_begin(cluster: Cluster, topic: str, group: str) -> None:
    """On one of its topics, that is enough."""
    known = settings(cluster, topic, group, start_from="earliest")
    check_source(known)
    produce(cluster, topic, [b"x"] * 10)
    with closing(open_source(known)) as source:
        read(source, 10)
    check_source(settings(cluster, topic, group))
    other = new_topic(cluster, 1)
    with pytest.raises(SourceError, match=rf"^start_from: group {group} has no offsets on topic {other}; .*--from"):
        check_source(settings(cluster, f"{topic},{other}", group))


@pytest.mark.parametrize("written", ["yesterday", "2026-13-01", ""])
def test_a_beginning_that_is_no_time(cluster: Cluster, topic: str, group: str, written: str) -> None:
    with pytest.raises(SourceError, match=rf"^start_from: {written} is neither earliest nor latest nor a time like"):
        check_source(settings(cluster, topic, group, start_from=written))


def test_a_source_takes_its_settings_and_another_group_where_one_is_given(
    cluster: Cluster, topic: str, group: str
) -> None:
    produce(cluster, topic, [b"x" * 1024, b"x" * 1025])
    chosen = settings(cluster, topic, group, start_from="earliest", max_message_bytes=1024)
    with closing(open_source(chosen, group=f"{group}-replay", until_end=True)) as source:
        assert sorted((r.size, r.payload is None) for r in read(source, 2)) == [(1024, False), (1025, True)]
    assert committed(cluster, group) == {}
    assert sum(committed(cluster, f"{group}-replay").values()) == 2


def test_the_cluster_is_the_named_one_before_the_embedded_one(tmp_path: Path) -> None:
    assert cluster_of(Settings(kafka_bootstrap="a:1,b:2", state_dir=tmp_path)).bootstrap == "a:1,b:2"
