"""How to reach a Kafka cluster: one set of settings for the consumer, the producer and the admin client.

Contract: `Cluster.options()` are keyword arguments that every kafka-python client takes. Secrets come by environment
or file (`monitor.settings`), never by flag, and `repr` does not show them. Errors name the setting, not the secret.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import (
    AuthorizationError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaConfigurationError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NotCoordinatorError,
    SaslAuthenticationFailedError,
    UnsupportedCodecError,
)

from monitor.errors import ClusterAwayError, ClusterError

_BOOTSTRAP_MS = 15_000


def never_create_topics(client: Any) -> None:
    """Keep a consumer or a producer from making the topics that it asks about, on brokers that would: kafka-python 3.0
    does not pass its own option on, and a topic that is deleted would be back at once."""
    metadata = client._metadata if hasattr(client, "_metadata") else client._client.cluster
    metadata.config["allow_auto_create_topics"] = False


@dataclass(frozen=True)
class Cluster:
    """Addresses, SASL and TLS. `bootstrap` is HOST:PORT[,HOST:PORT]."""

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_ca_file: Path | None = None
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None
    ssl_key_password: str | None = field(default=None, repr=False)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of a kafka-python client. Raises ClusterError for a file that cannot be read."""
        for name in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file"):
            path = getattr(self, name)
            # The client would only say that no broker answers.
            if path is not None and not os.access(path, os.R_OK):
                raise ClusterError(f"kafka_{name}: cannot read {path}")
        given = {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "ssl_cafile": self.ssl_ca_file and str(self.ssl_ca_file),
            "ssl_certfile": self.ssl_cert_file and str(self.ssl_cert_file),
            "ssl_keyfile": self.ssl_key_file and str(self.ssl_key_file),
            "ssl_password": self.ssl_key_password,
        }
        return {
            "bootstrap_servers": [a.strip() for a in self.bootstrap.split(",")],
            "security_protocol": self.security_protocol,
            "client_id": "awry",
            "bootstrap_timeout_ms": _BOOTSTRAP_MS,
            # The default of half a minute is too long after a restart of the broker.
            "reconnect_backoff_max_ms": 2_000,
            **{name: value for name, value in given.items() if value is not None},
        }

    def topics(self) -> set[str]:
        """The names of the cluster's topics. Raises ClusterError."""
        with self.explained(), closing(KafkaAdminClient(**self.options())) as admin:
            return set(admin.list_topics())

    def check_topics(self, wanted: Iterable[str], setting: str) -> None:
        """ClusterError that names `setting` when a topic is not there."""
        existing = self.topics()
        for topic in wanted:
            if topic not in existing:
                raise ClusterError(f"{setting}: there is no topic {topic} at {self.bootstrap}; create it first")

    def create_topics(self, names: Iterable[str], partitions: int) -> None:
        """Create what is not there yet, with the cluster's own replication factor. Raises ClusterError."""
        new = {name: {"num_partitions": partitions} for name in sorted(set(names) - self.topics())}
        if new:
            with self.explained(), closing(KafkaAdminClient(**self.options())) as admin:
                admin.create_topics(new, wait_for_metadata=True)

    def topics_with_offsets(self, group: str) -> set[str]:
        """Topics that the consumer group has committed offsets on. Raises ClusterError."""
        return {partition.topic for partition in self.committed(group)}

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The offsets that the consumer group has committed. Raises ClusterError."""
        deadline = time.monotonic() + _BOOTSTRAP_MS / 1000
        with self.explained(), closing(KafkaAdminClient(**self.options())) as admin:
            while True:
                try:
                    offsets = admin.list_group_offsets({group: None})[group]
                    return {partition: found.offset for partition, found in offsets.items() if found.offset >= 0}
                except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
                    # The first group of a cluster makes it create the topic of offsets.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)

    def ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """The end offset of each partition of topics that are there. Raises ClusterError."""
        with self.explained(), closing(KafkaAdminClient(**self.options())) as admin:
            partitions = [
                TopicPartition(topic["name"], partition["partition_index"])
                for topic in admin.describe_topics(list(topics))
                for partition in topic["partitions"]
            ]
            found = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
            return {partition: end.offset for partition, end in found.items()}

    def members(self, group: str) -> int:
        """How many consumers are in the group. Raises ClusterError."""
        with self.explained(), closing(KafkaAdminClient(**self.options())) as admin:
            return len(admin.describe_groups([group])[group]["members"])

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Connection errors inside become a ClusterError that names the setting."""
        try:
            yield
        except SaslAuthenticationFailedError:
            raise ClusterError(
                f"kafka_sasl_*: {self.bootstrap} refused the login (mechanism {self.sasl_mechanism}, user "
                f"{self.sasl_username})"
            ) from None
        except AuthorizationError as error:
            raise ClusterError(
                f"kafka: user {self.sasl_username or 'anonymous'} is not allowed to ({type(error).__name__})"
            ) from None
        except (KafkaTimeoutError, KafkaConnectionError):
            # kafka-python retries after a refused login or certificate too, until its timeout.
            who = f", user {self.sasl_username}" if self.sasl_username else ""
            raise ClusterAwayError(
                f"kafka_bootstrap: no broker answers at {self.bootstrap} within {_BOOTSTRAP_MS // 1000} s (security "
                f"protocol {self.security_protocol}{who}); wrong address, protocol, certificate or password?"
            ) from None
        except (KafkaConfigurationError, OSError, ValueError) as error:
            raise ClusterError(
                f"kafka: settings that do not work together or a file that cannot be read ({error})"
            ) from None
        except UnsupportedCodecError as error:
            raise ClusterError(
                f"kafka: records are compressed in a way that needs another package: pip install lz4, zstandard or "
                f"python-snappy ({error})"
            ) from None
        except KafkaError as error:
            raise ClusterError(f"kafka: {type(error).__name__} from {self.bootstrap}") from None
