"""Sequences that share their beginnings score as each of them alone, on every family, and are not read twice."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from probes.capture.batches import Encoded, collate
from probes.model.load import ChatModel
from probes.model.spans import TurnSpan
from probes.reuse.scores import scored
from probes.reuse.sequences import Reuse, SequenceReader
from probes.scoring import Scorer
from tests.probes.test_scoring import readers_of
from tests.support.models.tiny import FAMILIES, shared_chat

LOTS = 1 << 30


def ids_of(seed: int, count: int) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.randrange(256) for _ in range(count))


SYSTEM, TALK = ids_of(1, 70), ids_of(2, 45)
# Two system prompts, conversations that go on, one message within another, equal ones, and short ones.
TRAFFIC = [
    *(SYSTEM + ids_of(10 + n, 5 + 3 * n) for n in range(6)),
    *(TALK + ids_of(20, 16 * n) for n in range(5)),
    SYSTEM[:40] + ids_of(30, 30),
    SYSTEM,
    ids_of(31, 12),
    ids_of(31, 12),
    ids_of(32, 64),
    ids_of(32, 64),
    ids_of(33, 1),
]


def reader_of(chat: ChatModel, scorer: Scorer, max_bytes: int = LOTS, **options: object) -> SequenceReader:
    return SequenceReader(scorer.projection, max_bytes=max_bytes, **options)  # type: ignore[arg-type]


def read(reader: SequenceReader, sequences: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    for chosen, values in reader.read(sequences):
        found |= dict(zip(chosen, values, strict=True))
    assert sorted(found) == list(range(len(sequences)))
    return [found[i] for i in range(len(sequences))]


def alone(scorer: Scorer, ids: tuple[int, ...]) -> torch.Tensor:
    return scorer.projection(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0]


def scorer_of(chat: ChatModel) -> Scorer:
    return Scorer(chat.layout, readers_of(chat.layout), chat.device)


@pytest.mark.parametrize("portion", [1, 3, len(TRAFFIC)])
@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_those_of_each_sequence_alone(family: str, portion: int) -> None:
    chat = shared_chat(family)
    scorer = scorer_of(chat)
    reader = reader_of(chat, scorer)
    for again in range(2):
        for start in range(0, len(TRAFFIC), portion):
            part = TRAFFIC[start : start + portion]
            for ids, values in zip(part, read(reader, part), strict=True):
                torch.testing.assert_close(values, alone(scorer, ids), atol=1e-4, rtol=1e-4)
        if not again:
            first = reader.tokens_run
    assert reader.tokens_read == 2 * sum(map(len, TRAFFIC))
    # The second time what is not a whole block, or came once, is read again.
    assert reader.tokens_run - first < first < 0.8 * sum(map(len, TRAFFIC))


def test_scores_are_those_of_batches_for_every_aggregation() -> None:
    chat = shared_chat("llama")
    scorer = scorer_of(chat)
    items = [
        Encoded(
            ids,
            max(1, len(ids) - 4),
            turns=(TurnSpan(0, "system", 1, 9), TurnSpan(1, "user", 9, len(ids) - 4)),
            last_user=1,
            spans="known",
        )
        for ids in TRAFFIC
        if len(ids) > 14
    ]
    reader = reader_of(chat, scorer)
    for _ in range(2):
        for batch, scores in scored(items, scorer, reader, turns=True):
            for position, row in enumerate(batch.rows):
                wanted = scorer(collate([items[row]], chat.device), turns=True)
                torch.testing.assert_close(
                    scores.total[position], wanted.total[0], atol=1e-4, rtol=1e-4, equal_nan=True
                )
                assert scores.counts[position].tolist() == wanted.counts[0].tolist()
                assert scores.turns is not None
                assert wanted.turns is not None
                for r in range(len(scorer.readers)):
                    got, own = dict(scores.turns[r][position]), dict(wanted.turns[r][0])
                    assert got == pytest.approx(own, abs=1e-4)


def test_equal_sequences_and_those_within_others_are_read_once() -> None:
    chat = shared_chat("llama")
    scorer = scorer_of(chat)
    reader = reader_of(chat, scorer, max_bytes=0)
    long = ids_of(5, 60)
    found = read(reader, [long[:20], long, long, long[:33], ids_of(6, 10)])
    assert [len(values) for values in found] == [20, 60, 60, 33, 10]
    assert (reader.tokens_read, reader.tokens_run) == (183, 70)
    assert reader.kept_bytes == 0


def test_a_system_prompt_is_read_once_in_a_batch_and_never_again() -> None:
    chat = shared_chat("llama")
    reader = reader_of(chat, scorer_of(chat), fixed_tokens=10)
    system = ids_of(7, 64)
    read(reader, [system + ids_of(100 + n, 20) for n in range(8)])
    assert reader.tokens_run == 64 + 8 * 20
    read(reader, [system + ids_of(200 + n, 20) for n in range(8)])
    assert reader.tokens_run == 64 + 16 * 20


def test_a_conversation_is_kept_once_it_went_on() -> None:
    chat = shared_chat("llama")
    reader = reader_of(chat, scorer_of(chat))
    turns = [ids_of(300 + n, 32) for n in range(6)]
    run = []
    for n in range(6):
        before = reader.tokens_run
        read(reader, [sum(turns[: n + 1], ())])
        run.append(reader.tokens_run - before)
    assert run == [32, 64, 32, 32, 32, 32]


def test_nothing_kept_is_used_under_another_condition() -> None:
    chat = shared_chat("llama")
    condition = "one"
    scorer = scorer_of(chat)
    reader = reader_of(chat, scorer, condition=lambda: condition)
    one = SYSTEM + ids_of(8, 10)
    for _ in range(3):
        read(reader, [one])
    before = reader.tokens_run
    read(reader, [one])
    assert reader.tokens_run - before < 16
    condition = "another"
    before = reader.tokens_run
    read(reader, [one])
    assert reader.tokens_run - before == len(one)


@pytest.mark.parametrize("limit", [1, 150_000, 400_000])
def test_what_is_kept_stays_within_its_bound_and_scores_stay_right(limit: int) -> None:
    chat = shared_chat("llama")
    scorer = scorer_of(chat)
    reader = reader_of(chat, scorer, max_bytes=limit)
    for seed in range(30):
        part = [ids_of(seed % 5, 64) + ids_of(1000 + seed, 8), ids_of(seed % 3, 48) + ids_of(2000 + seed, 9)]
        for ids, values in zip(part, read(reader, part), strict=True):
            torch.testing.assert_close(values, alone(scorer, ids), atol=1e-4, rtol=1e-4)
        assert reader.kept_bytes <= limit
    assert (reader.kept_bytes > 0) == (limit > 1)
    reader.shrink()
    assert (reader.kept_bytes, reader.max_bytes) == (0, limit // 2)


def test_portions_are_cut_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = shared_chat("llama")
    scorer = scorer_of(chat)
    monkeypatch.setattr("probes.reuse.sequences._MOST_VALUES", 100 * scorer.columns)
    reader = reader_of(chat, scorer)
    sizes = []
    found: dict[int, torch.Tensor] = {}
    for chosen, values in reader.read(TRAFFIC):
        sizes.append(len({TRAFFIC[i] for i in chosen}))
        found |= dict(zip(chosen, values, strict=True))
    assert len(sizes) > 3
    for i, ids in enumerate(TRAFFIC):
        torch.testing.assert_close(found[i], alone(scorer, ids), atol=1e-4, rtol=1e-4)


def test_long_beginnings_of_unlike_length_are_read_in_parts() -> None:
    """Rows times what stands before them is bounded, whatever the budget for a pass says."""
    chat = shared_chat("llama")
    scorer = scorer_of(chat)
    reader = reader_of(chat, scorer, token_budget=40)
    talks = [ids_of(50 + n, 32 * (1 + n % 4)) for n in range(6)]
    for step in range(4):
        part = [talk + ids_of(60 + n, 7 * step) for n, talk in enumerate(talks)]
        for ids, values in zip(part, read(reader, part), strict=True):
            torch.testing.assert_close(values, alone(scorer, ids), atol=1e-4, rtol=1e-4)


def test_masks_are_left_out_where_they_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = shared_chat("llama")
    scorer = scorer_of(chat)
    seen: list[bool] = []
    forward = type(scorer.projection).__call__

    def call(self: object, ids: torch.Tensor, mask: torch.Tensor | None, **others: object) -> torch.Tensor:
        seen.append(mask is not None)
        return forward(self, ids, mask, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(type(scorer.projection), "__call__", call)
    reader = reader_of(chat, scorer, reuse=Reuse(masks=False))
    found = read(reader, TRAFFIC)
    assert False in seen
    monkeypatch.undo()
    for ids, values in zip(TRAFFIC, found, strict=True):
        torch.testing.assert_close(values, alone(scorer, ids), atol=1e-4, rtol=1e-4)
