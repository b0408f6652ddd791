"""Where the connector's readings go: to a publisher, or into this process for awry's own engine and for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

MEMORY = "memory"
TOKEN_VALUES = "values"  # noqa: S105 - of tokens of text
# Of engines in this process, by request: the final readings, and the values of its tokens.
HELD: dict[str, dict[str, Any]] = {}
VALUES: dict[str, NDArray[np.float32]] = {}


class Sink(Protocol):
    """`make` gives a reading's fields; it is called by the sink, in its own thread where it has one. `size` is what it
    holds until then, in bytes."""

    def put(self, make: Callable[[], dict[str, Any]], size: int = 0) -> object: ...

    def close(self) -> object: ...


class Memory:
    """Keeps the final readings in `HELD`, computed at once."""

    def put(self, make: Callable[[], dict[str, Any]], size: int = 0) -> None:
        del size
        made = make()
        if made["kind"] == "final":
            HELD[made["id"]] = made

    def close(self) -> None:
        return None
