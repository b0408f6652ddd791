"""Work that a daemon thread repeats beside the caller. Imports nothing of awry, so that every package may import it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What `work` returns to be called no more.
NEVER = math.inf


@contextmanager
def periodic(
    work: Callable[[], float | None],
    *,
    every: float,
    name: str,
    first: float = 0.0,
    join_seconds: float | None = None,
) -> Iterator[None]:
    """Call `work` every `every` seconds until the block ends, in a thread called `name`.

    The first call comes after `first` seconds. `work` may return the seconds until the next call, or NEVER. A call in
    progress when the block ends is waited for, `join_seconds` at most where that is given. `work` handles its own
    errors: one that it raises ends the thread, and not the block.
    """
    ended = threading.Event()

    def loop() -> None:
        pause = first
        while not ended.wait(None if pause == NEVER else pause):
            requested = work()
            pause = every if requested is None else requested

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(join_seconds)
