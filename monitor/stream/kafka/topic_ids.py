"""Which log a topic is: the id that Kafka gives it when it is made (KIP-516), so that one made again is another log.

Contract: `id_of(topic)` is the id of a topic as the client knows it, None on brokers without ids (before 2.8);
`changed()` tells which topics have got another one, until `follow` is called. Committed offsets carry in their metadata
the id that they count in, the one before a change until then; offsets of before, or of other clients, carry none and
are taken as they are.
"""

from __future__ import annotations

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from monitor.stream.kafka.inflight import Partition

_MARK = "awry topic "


class TopicIds:
    """The ids of the topics that `consumer` reads."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._cluster = consumer._client.cluster
        self._told: dict[str, str] = {}

    def id_of(self, topic: str) -> str | None:
        """The id of a topic."""
        found = self._cluster.topic_id(topic)
        # Brokers without ids give zeros.
        current = str(found) if found is not None and found.int else None
        if current is not None:
            self._told.setdefault(topic, current)
        return current or self._told.get(topic)

    def changed(self) -> dict[str, str]:
        """The new ids of topics that were made again and are not followed yet."""
        now = {topic: self.id_of(topic) for topic in self._told}
        return {topic: id_ for topic, id_ in now.items() if id_ is not None and id_ != self._told[topic]}

    def follow(self, changed: dict[str, str]) -> None:
        """These topics are read from their beginning: offsets count in the new ids now."""
        self._told |= changed

    def offsets(self, offsets: dict[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Offsets as they are committed, with the id that they count in."""
        return {
            TopicPartition(topic, partition): OffsetAndMetadata(offset, self._metadata(topic), -1)
            for (topic, partition), offset in offsets.items()
        }

    def of_another_log(self, topic: str, committed: OffsetAndMetadata) -> bool:
        """Whether a committed offset counts in a topic that is gone."""
        metadata, current = committed.metadata or "", self.id_of(topic)
        return metadata.startswith(_MARK) and current is not None and metadata != _MARK + current

    def _metadata(self, topic: str) -> str:
        return _MARK + self._told[topic] if self.id_of(topic) is not None else ""
