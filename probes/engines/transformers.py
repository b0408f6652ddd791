"""transformers in this process: the default engine.

Contract: that of `probes.engines.base`. The forward pass ends at the deepest site that is read, and what messages have
in common is read once (`probes.reuse`), where a trial on the model found that to be right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from probes.capture.batches import Batch, Encoded
from probes.engines.base import Engine, Plan, Session, plan_of
from probes.model.load import ChatModel
from probes.reuse.check import settle
from probes.reuse.scores import scored
from probes.reuse.sequences import Reuse, SequenceReader
from probes.scoring import Reader, Scorer, Scores

NAME = "transformers"


def label() -> str:
    """The engine with the version that is installed."""
    return f"{NAME} {version(NAME)}"


class TransformersEngine(Engine):
    """A model that is loaded."""

    name = NAME

    @property
    def label(self) -> str:
        return label()

    def plan(self, readers: Mapping[str, Reader]) -> Plan:
        return plan_of(self.chat.layout, readers, lambda _: None)

    def session(self, readers: Sequence[Reader], *, token_budget: int = 2048, reuse_bytes: int = 0) -> Session:
        return _Session(self.chat, readers, token_budget, reuse_bytes)


class _Session(Session):
    def __init__(self, chat: ChatModel, readers: Sequence[Reader], token_budget: int, reuse_bytes: int) -> None:
        super().__init__(readers)
        self._vocabulary = chat.vocabulary
        self._scorer = Scorer(chat.layout, readers, chat.device)
        self._reader = SequenceReader(
            self._scorer.projection,
            max_bytes=reuse_bytes,
            token_budget=token_budget,
            condition=lambda: chat.condition,
        )

    @property
    def tokens_run(self) -> int:
        return self._reader.tokens_run

    @property
    def kept_bytes(self) -> int:
        return self._reader.kept_bytes

    def score(self, items: Sequence[Encoded], *, turns: bool = False) -> Iterator[tuple[Batch, Scores]]:
        self._reader.before_pass = self.before_pass
        return scored(items, self._scorer, self._reader, turns=turns)

    def try_out(self, tolerance: float) -> dict[str, Any]:
        reader = self._reader
        reasons = settle(reader, self._scorer, self._vocabulary, tolerance)
        return {"reasons": reasons, "reuse": asdict(reader.reuse), "fixed_tokens": reader.fixed_tokens}

    def adopt(self, found: Mapping[str, Any]) -> None:
        self._reader.reuse, self._reader.fixed_tokens = Reuse(**found["reuse"]), int(found["fixed_tokens"])

    def shrink(self) -> int | None:
        if not self._reader.kept_bytes:
            return None
        self._reader.shrink()
        return self._reader.max_bytes
