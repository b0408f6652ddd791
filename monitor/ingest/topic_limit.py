"""What a topic takes: the size of its largest record, and whether one fits.

A record that the broker refuses for its size would also end every other one that is on its way: after such an error the
idempotent producer begins anew. So records are measured before, as they will be sent: compressed.
"""

from __future__ import annotations

from contextlib import closing

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.codec import lz4_encode
from kafka.errors import KafkaError

from monitor.stream.kafka.client import Cluster

# What brokers have unless told otherwise; also where nobody tells.
DEFAULT_BYTES = 1_048_588

_NAME = "max.message.bytes"
# Of a batch with one record: its header, and the lengths within.
_BATCH_BYTES = 256


def max_message_bytes(cluster: Cluster, topic: str) -> int:
    """The topic's own `max.message.bytes`, also where it is its broker's; the default where it cannot be read."""
    try:
        with closing(KafkaAdminClient(**cluster.options())) as admin:
            found = admin.describe_configs([ConfigResource("TOPIC", topic, {_NAME: None})], config_filter="all")
        return int(found["topic"][topic][_NAME]["value"])
    except (KafkaError, LookupError, TypeError, ValueError, OSError):
        return DEFAULT_BYTES


def fits(value: bytes, header_bytes: int, limit: int) -> bool:
    """Whether a record can be sent in a batch of its own."""
    room = limit - header_bytes - _BATCH_BYTES
    return len(value) <= room or len(lz4_encode(value)) <= room
