"""Any other JSON: expressions (JMESPath) that say where the fields of a wire message are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitor.stream.formats.draft import Draft


class Mapper:
    """Reads values by expressions."""

    def __init__(self, expressions: Mapping[str, str]) -> None:
        self._expressions = dict(expressions)

    def matches(self, value: Any) -> bool:
        """Whether the expression of the turns finds something."""
        return False

    def read(self, value: Any) -> list[Draft]:
        """Its messages."""
        return []
