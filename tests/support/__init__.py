"""Helpers that tests share; nothing here is a test."""

from pathlib import Path

# The repository.
ROOT = Path(__file__).parents[2]
