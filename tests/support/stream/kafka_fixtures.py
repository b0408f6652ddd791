"""One real Kafka for the session, from wheels: topics are fresh for each test, the broker is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from monitor.settings import default_state_dir
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, running
from monitor.stream.kafka.source import KafkaSource
from monitor.stream.kafka.start_offset import StartFrom
from tests.conftest import _STATE_DIR
from tests.support.stream.kafka import new_topic, unique

Open = Callable[..., KafkaSource]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that starts a broker, or uses the session's: nothing else needs the jars."""
    for item in items:
        if "jar_folder" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session")
def jar_folder() -> Path:
    """Kafka's jars, fetched once (44 MB) and kept for all sessions."""
    return (Path(_STATE_DIR) if _STATE_DIR else default_state_dir()) / "kafka" / "jars"


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, jar_folder: Path) -> Iterator[Broker]:
    """A broker that all tests share; those that stop one start their own."""
    folder = tmp_path_factory.mktemp("kafka")
    with running(Broker(folder, jar_folder=jar_folder)) as started:
        yield started


@pytest.fixture(scope="session")
def cluster(broker: Broker) -> Cluster:
    return Cluster(broker.address)


@pytest.fixture
def topic(cluster: Cluster) -> str:
    """A fresh topic of three partitions."""
    return new_topic(cluster)


@pytest.fixture
def group() -> str:
    """A consumer group that nobody has used."""
    return unique("group")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the ends and commit more often than a worker would."""
    monkeypatch.setattr("monitor.stream.kafka.lag._EVERY_SECONDS", 0.2)
    monkeypatch.setattr("monitor.stream.kafka.source._COMMIT_SECONDS", 0.05)
    monkeypatch.setattr("monitor.stream.kafka.source._METADATA_SECONDS", 1)


@pytest.fixture
def opened(cluster: Cluster, topic: str, group: str) -> Iterator[Open]:
    """Sources on the test's topic in the test's group, closed after it."""
    sources: list[KafkaSource] = []

    def make(start_from: StartFrom | None = None, *, topics: Sequence[str] = (), **options: Any) -> KafkaSource:
        sources.append(KafkaSource(cluster, topics or [topic], group, start_from=start_from, **options))
        return sources[-1]

    yield make
    for source in sources:
        source.close()
