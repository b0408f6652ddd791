"""Kafka: the source with its offsets, the client, look-ups, and an embedded broker."""
