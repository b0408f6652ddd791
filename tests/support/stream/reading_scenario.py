"""The scenario with readings in the place of messages: one engine's, numbered, over all partitions, some sent twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from kafka import KafkaProducer

from tests.support.stream.scenario import Scenario, Sent
from tests.support.stream.stub_scorer import DIGEST, NAME, score_of
from tests.support.stream.worker_process import Setup


@dataclass
class ReadingScenario(Scenario):
    """`published` are the readings as they were sent."""

    instance: str = "0c" * 16
    numbers: Iterator[int] = field(default_factory=count)
    published: list[bytes] = field(default_factory=list)

    def payload(self, one: Sent, n: int) -> bytes:
        """What is no reading has no number: that would be a hole."""
        del n
        if not one.valid:
            return json.dumps({"awry_reading": 1, "id": one.message_id, "tenant": one.tenant}).encode()
        value = self.record(
            "final",
            id=one.message_id,
            tenant=one.tenant,
            probes=[{"name": NAME, "digest": DIGEST, "value": score_of(one.message_id), "tokens": 5}],
        )
        self.published.append(value)
        return value

    def record(self, kind: str, **more: Any) -> bytes:
        """The next record of the engine."""
        value = {"awry_reading": 1, "engine": "vllm", "instance": self.instance, "sequence": next(self.numbers)}
        return json.dumps(value | {"kind": kind, "created": datetime.now(UTC).isoformat()} | more).encode()

    def send(self, *records: bytes) -> None:
        """Records that no row stands for."""
        producer = KafkaProducer(**self.cluster.options(), acks="all")
        for record in records:
            producer.send(self.name, record)
        producer.flush(timeout=60)
        producer.close()

    def setup(self, **changes: Any) -> Setup:
        return super().setup(**{"readings": True, **changes})
