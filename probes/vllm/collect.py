"""Values of each request's tokens, held by the scheduler's side until the request is finished.

Contract: `plan(...)` says for one step which tokens' values are to be read from which slots; `take(values)` files what
a step gave, in the order of the steps; `finish(request)` gives what became of a request as soon as all its tokens'
values are there: those of the step that finished it come one step later. A request that is aborted is given with the
values it has. Positions that nothing was read for are NaN.

Pure: knows no vLLM.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Scheduled:
    """Tokens [start, stop) of one request in a step, with the ids of the KV blocks that hold its tokens from the first
    on."""

    request: str
    start: int
    stop: int
    blocks: Sequence[int]


@dataclass(frozen=True)
class Step:
    """For the worker's side: the slots that are read after the pass, and those whose tokens are steered in it."""

    slots: tuple[int, ...] = ()
    steered: tuple[int, ...] = ()


@dataclass
class Held:
    """A request: `values` (tokens, columns) so far, and how many of its tokens a prefix cache had."""

    n_prompt: int
    values: Values
    # How many of its first tokens were planned, and how many have their values.
    known: int = 0
    there: int = 0
    cached: int = 0
    # The last token count that was told of, for readings while it runs.
    told: int = 0
    # Set once it is finished: how many tokens have values, and what to do then.
    wanted: int | None = None
    done: Callable[[Values], Any] | None = field(default=None, repr=False)


class Collector:
    """One engine's requests."""

    def __init__(self, columns: int, block_size: int) -> None:
        self._columns = columns
        self._block_size = block_size
        self._held: dict[str, Held] = {}
        self._steps: deque[list[tuple[str, int, int]]] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def begin(self, request: str, n_prompt: int) -> None:
        """A new request."""
        self._held[request] = Held(n_prompt, np.full((n_prompt + 16, self._columns), np.nan, np.float32))

    def held(self, request: str) -> Held | None:
        return self._held.get(request)

    def plan(
        self, scheduled: Iterable[Scheduled], steered_from: Callable[[str], int | None] = lambda _request: None
    ) -> Step:
        """What to read after this step. The first time, a request's cached tokens are read too. `steered_from` gives
        the first token that is steered of a request, None where none is."""
        slots: list[int] = []
        steered: list[int] = []
        parts: list[tuple[str, int, int]] = []
        for each in scheduled:
            held = self._held.get(each.request)
            if held is None:
                continue
            start = each.start
            if held.known < start:
                held.cached = max(held.cached, start - held.known)
                start = held.known
            held.known = max(held.known, each.stop)
            slots += self._slots(each, start)
            parts.append((each.request, start, each.stop))
            first = steered_from(each.request)
            if first is not None:
                steered += self._slots(each, max(each.start, first))
        self._steps.append(parts)
        return Step(tuple(slots), tuple(steered))

    def _slots(self, of: Scheduled, start: int) -> list[int]:
        size = self._block_size
        return [of.blocks[place // size] * size + place % size for place in range(start, of.stop)]

    def take(self, values: Values | None) -> None:
        """What the oldest step gave whose values were not taken yet; None where it had none to read."""
        parts = self._steps.popleft()
        place = 0
        for request, start, stop in parts:
            held = self._held.get(request)
            if held is not None and values is not None:
                self._file(held, start, values[place : place + stop - start])
            place += stop - start
            if held is not None:
                self._finish(request, held)

    def finish(self, request: str, tokens: int, done: Callable[[Values], Any]) -> None:
        """It ended with so many tokens of which values exist or will; `done` gets the values, now or soon."""
        held = self._held.get(request)
        if held is None:
            return
        held.wanted, held.done = tokens, done
        self._finish(request, held)

    def flush(self) -> None:
        """No more will come: what is finished is given as it is."""
        for request, held in list(self._held.items()):
            if held.done is not None:
                self._give(request, held)

    def _file(self, held: Held, start: int, values: Values) -> None:
        stop = start + len(values)
        if stop > len(held.values):
            more = np.full((max(stop, 2 * len(held.values)), self._columns), np.nan, np.float32)
            more[: len(held.values)] = held.values
            held.values = more
        held.values[start:stop] = values
        if start <= held.there:
            held.there = max(held.there, stop)

    def _finish(self, request: str, held: Held) -> None:
        if held.done is None or held.wanted is None:
            return
        there = min(held.wanted, held.known)
        if not np.isnan(held.values[:there]).any() or not self._expects(request):
            self._give(request, held)

    def _expects(self, request: str) -> bool:
        return any(name == request for parts in self._steps for name, _, _ in parts)

    def _give(self, request: str, held: Held) -> None:
        del self._held[request]
        if held.done is not None and held.wanted is not None:
            held.done(held.values[: min(held.wanted, held.known)])
