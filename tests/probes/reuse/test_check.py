"""What a model does not stand is found at start and left out, and its scores stay right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from probes.model.load import ChatModel
from probes.reuse.check import fixed_tokens, settle
from probes.reuse.prefix import _layer_class
from probes.reuse.sequences import Reuse, SequenceReader
from probes.scoring import Scorer
from tests.probes.reuse.test_sequences import LOTS, TRAFFIC, alone, read, scorer_of
from tests.support.models.tiny import FAMILIES, shared_chat, tiny_chat


def settled(chat: ChatModel, max_bytes: int = LOTS) -> tuple[SequenceReader, Scorer, list[str]]:
    scorer = scorer_of(chat)
    reader = SequenceReader(scorer.projection, max_bytes=max_bytes)
    return reader, scorer, settle(reader, scorer, chat.vocabulary, 1e-4)


def assert_right(reader: SequenceReader, scorer: Scorer) -> None:
    for _ in range(2):
        for ids, values in zip(TRAFFIC, read(reader, TRAFFIC), strict=True):
            torch.testing.assert_close(values, alone(scorer, ids), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_is_settled_on_a_family_is_right(family: str) -> None:
    reader, scorer, off = settled(shared_chat(family))
    assert reader.kept_bytes == 0
    assert reader.reuse.within
    assert [reason.split(":")[0] for reason in off] == [
        name
        for name, right in (
            ("passes without an attention mask", not reader.reuse.masks),
            ("kept prefixes", reader.reuse.prefixes),
        )
        if not right
    ]
    assert_right(reader, scorer)


def test_nothing_is_off_for_plain_decoders() -> None:
    for family in ("llama", "gpt2", "gemma3"):
        reader, _, off = settled(shared_chat(family))
        assert off == []
        assert reader.reuse == Reuse(masks=False)


def test_a_cache_that_is_not_read_as_it_should_be_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(self: Any, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[Any, Any]:
        self.added = (keys, values)
        if self.before is None:
            return keys, values
        first = [torch.zeros_like(x) for x in self.before]
        return torch.cat([first[0], keys], 2), torch.cat([first[1], values], 2)

    monkeypatch.setattr(_layer_class(), "update", forget)
    reader, scorer, off = settled(shared_chat("llama"))
    assert len(off) == 1
    assert off[0].startswith("kept prefixes: scores differ by ")
    assert reader.reuse == Reuse(prefixes=False, masks=False)
    assert_right(reader, scorer)


def test_a_class_that_raises_on_a_cache_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError

    monkeypatch.setattr(_layer_class(), "update", refuse)
    reader, scorer, off = settled(shared_chat("llama"))
    assert off == ["kept prefixes: NotImplementedError on this class of model"]
    assert_right(reader, scorer)


@contextmanager
def looking_ahead(chat: ChatModel) -> Iterator[None]:
    """A decoder in which each token knows of all others, padding too."""
    handle = chat.layout.blocks[0].register_forward_pre_hook(
        lambda _module, args: (args[0] + args[0].mean(1, keepdim=True), *args[1:])
    )
    try:
        yield
    finally:
        handle.remove()


def test_a_decoder_that_is_not_causal_shares_nothing() -> None:
    chat = tiny_chat("llama")
    with looking_ahead(chat):
        reader, _, off = settled(chat)
    assert [reason.split(":")[0] for reason in off] == [
        "passes without an attention mask",
        "reading a message within another",
        "kept prefixes",
    ]
    assert reader.reuse == Reuse(within=False, prefixes=False, masks=True)


def test_without_room_for_prefixes_they_are_not_tried() -> None:
    reader, _, off = settled(shared_chat("llama"), max_bytes=0)
    assert off == []
    assert reader.kept_bytes == 0


def test_what_a_pass_costs_is_between_its_bounds() -> None:
    chat = shared_chat("llama")
    assert 1 <= fixed_tokens(scorer_of(chat), chat.vocabulary) <= 4096
