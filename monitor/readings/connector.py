"""What vLLM loads: the connector of `probes.vllm`, with awry's publisher of readings.

`--kv-transfer-config` names it: `kv_connector` AwryConnector, `kv_connector_module_path` monitor.readings.connector
(deploy/vllm/connector.json, docs/vllm.md).
"""

from __future__ import annotations

from monitor.readings.publisher import Publisher, PublisherOptions
from probes.vllm.connector import AwryConnector as Reading
from probes.vllm.settings import ConnectorSettings


class AwryConnector(Reading):
    """See the module."""

    @staticmethod
    def open_publisher(settings: ConnectorSettings, *, engine: str, model: str) -> Publisher:
        """PublisherError where readings cannot be written."""
        return Publisher(
            PublisherOptions(
                out=settings.readings,
                engine=engine,
                model=model,
                kafka=settings.kafka,
                queue_records=settings.queue,
                heartbeat_seconds=settings.heartbeat_seconds,
                wait_for_broker=settings.wait_for_broker,
            )
        )
