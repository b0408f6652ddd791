"""One real Kafka for the session, from wheels: topics are fresh for each test, the broker is not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.broker import Broker, running
from monitor.cluster import Cluster
from monitor.settings import default_state_dir
from tests.conftest import _STATE_DIR
from tests.kafka.parts import new_topic, unique


@pytest.fixture(scope="session")
def jar_folder() -> Path:
    """Kafka's jars, fetched once (44 MB) and kept for all sessions."""
    return (Path(_STATE_DIR) if _STATE_DIR else default_state_dir()) / "kafka" / "jars"


@pytest.fixture(scope="session")
def broker(jar_folder: Path) -> Iterator[Broker]:
    """A broker that all tests share; those that stop one start their own."""
    with tempfile.TemporaryDirectory(prefix="awry-kafka-") as folder:
        with running(Broker(Path(folder), jar_folder=jar_folder)) as started:
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
