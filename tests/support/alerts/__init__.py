"""Helpers for tests of alerts: rows, scenes, channels."""
