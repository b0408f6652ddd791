"""Helpers for tests of the stream and the worker: a real Kafka, faults, worker processes."""
