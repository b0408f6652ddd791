"""A message as it is read: turns, response and tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Conversation:
    """A message: its turns, what was answered where that is to be read, and the tools that it names."""

    turns: Sequence[Mapping[str, Any]]
    response: str | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
