"""What scoring needs of whatever runs the model.

Contract: an `Engine` has the model's text side (`chat`: rendering, token ids, identity, and its layout, whose modules
may hold no weights). `plan(readers)` accepts or refuses each reader by its name, with the reason, before anything is
scored. `session(readers)` scores messages under the readers that it accepted: what a message gives depends on its own
tokens alone, whatever is in the batch and whatever was read before, up to rounding. The arithmetic from tokens' values
to scores is `probes.scoring.Arithmetic` in every engine.

`label` names the engine and its version, as cards and start-up checks hold it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.capture.batches import Batch, Encoded
from probes.errors import DirectionError, EngineError, SiteError
from probes.model.facts import Facts
from probes.model.load import ChatModel
from probes.planes import planes
from probes.scoring import Reader, Scores


@dataclass(frozen=True)
class Plan:
    """Which readers an engine can score, by name, and why it cannot score the others."""

    accepted: tuple[str, ...]
    refused: Mapping[str, str]

    def check(self) -> None:
        """EngineError, with every reason, where one is refused."""
        if self.refused:
            raise EngineError("; ".join(f"probe {name}: {reason}" for name, reason in self.refused.items()))


def plan_of(facts: Facts, readers: Mapping[str, Reader], refusal: Callable[[Reader], str | None]) -> Plan:
    """The plan of an engine that refuses, beside what the model has no place for, what `refusal` gives a reason for."""
    accepted, refused = [], {}
    for name, reader in readers.items():
        try:
            planes(facts, reader.directions)
            reason = refusal(reader)
        except (SiteError, DirectionError) as error:
            reason = str(error)
        if reason is None:
            accepted.append(name)
        else:
            refused[name] = reason
    return Plan(tuple(accepted), refused)


class Session(ABC):
    """Scores under one set of readers. `before_pass` is called before the model runs; what it raises ends `score`."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = tuple(readers)
        self.before_pass: Callable[[], None] = lambda: None

    @property
    def tokens_run(self) -> int:
        """Tokens that went through the model so far: fewer than were read where some are read once for several."""
        return 0

    @property
    def kept_bytes(self) -> int:
        """What is kept of earlier messages, where it is the session's own."""
        return 0

    @abstractmethod
    def score(self, items: Sequence[Encoded], *, turns: bool = False) -> Iterator[tuple[Batch, Scores]]:
        """Batches with their scores; `batch.rows` are the places of its messages among `items`. With `turns` the scores
        by turn are there for batches that hold a message of several turns."""

    @abstractmethod
    def try_out(self, tolerance: float) -> dict[str, Any]:
        """Find out on made-up sequences which short cuts are right here: plain data for `adopt`, whose `reasons` say in
        words what is left out. Scores may differ by `tolerance`."""

    def adopt(self, found: Mapping[str, Any]) -> None:  # noqa: B027 - most have nothing to adopt
        """Go by what `try_out` found, now or at an earlier start."""

    def shrink(self) -> int | None:
        """Memory ran out: keep less of earlier messages; at most how many bytes now, None where none was kept."""
        return None


class Engine(ABC):
    """See the module."""

    name: str

    def __init__(self, chat: ChatModel) -> None:
        self.chat = chat

    @property
    @abstractmethod
    def label(self) -> str:
        """`transformers 5.24.0`, `vllm 0.32.0`."""

    @property
    def conditions(self) -> str:
        """All of the engine that could change a score, for what an earlier start found out."""
        return self.label

    @abstractmethod
    def plan(self, readers: Mapping[str, Reader]) -> Plan:
        """See the module."""

    @abstractmethod
    def session(self, readers: Sequence[Reader], *, token_budget: int = 2048, reuse_bytes: int = 0) -> Session:
        """See the module. `token_budget` bounds a pass and `reuse_bytes` what is kept, of engines that do neither."""

    def scores(self, items: Sequence[Encoded], readers: Sequence[Reader]) -> NDArray[np.float32]:
        """Scores of messages under readers, (messages, readers), in the order of `items`."""
        made = np.empty((len(items), len(readers)), dtype=np.float32)
        for batch, scores in self.session(readers).score(items):
            made[list(batch.rows)] = scores.total.numpy()
        return made

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of processes and memory."""
