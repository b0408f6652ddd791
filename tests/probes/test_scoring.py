from __future__ import annotations

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch

from probes.capture.aggregation import Aggregation
from probes.capture.batches import Encoded, batches, collate, encode
from probes.capture.sites import Site, observing, site_width
from probes.directions import Direction
from probes.errors import DirectionError, SiteError
from probes.model.layout import Layout
from probes.model.load import ChatModel
from probes.scoring import Reader, Scorer, score_all
from tests.support.models.tiny import FAMILIES, MULTIMODAL, shared_chat, tiny_chat, user

AGGREGATIONS = [
    Aggregation("last", "prompt"),
    Aggregation("last", "response"),
    Aggregation("mean", "response"),
    Aggregation("max_rolling_mean", "prompt", 5),
    Aggregation("ema_max", "response", 0.3),
]
TEXTS = [
    ("Hi", "Hello."),
    ("What is the capital of France?", "It is Paris, of course."),
    ("x", "y" * 60),
    ("Tell me a very long story about a dragon who learned to bake bread.", "No."),
    ("Count: 1 2 3", "4 5 6"),
]


def direction(layout: Layout, site: Site, seed: int = 0) -> Direction:
    rng = np.random.default_rng([seed, site.layer + 1, site.head + 1])
    width = site_width(site, layout)
    return Direction(site, 3 * rng.standard_normal(width), rng.standard_normal(width), 1.0)


def readers_of(layout: Layout) -> list[Reader]:
    sites = [Site("residual", 0), Site("residual", 1), Site("final"), Site("head", 1, 3)]
    readers = [Reader((direction(layout, s),), a) for s in sites for a in AGGREGATIONS]
    heads = tuple(direction(layout, Site("head", layer, h)) for layer, h in ((2, 1), (0, 0), (2, 3)))
    return readers + [Reader(heads, a) for a in AGGREGATIONS]


def items_of(chat: ChatModel) -> list[Encoded]:
    return [encode(chat, user(ask), reply) for ask, reply in TEXTS]


def slow_scores(chat: ChatModel, item: Encoded, reader: Reader) -> float:
    """One message alone, unpadded, in float64 and plain arithmetic."""
    got: dict[Site, torch.Tensor] = {}
    ids = torch.tensor([item.ids])
    places = {s if s.kind != "head" else Site("head", s.layer) for s in (d.site for d in reader.directions)}
    with torch.no_grad(), observing(chat.layout, {p: partial(got.__setitem__, p) for p in places}) as run:
        run(input_ids=ids, attention_mask=torch.ones_like(ids))
    tokens = []
    for d in reader.directions:
        x = got[Site("head", d.site.layer)][:, :, d.site.head] if d.site.kind == "head" else got[d.site]
        tokens.append((x[0].double().numpy() - d.centre) @ d.vector / (d.vector @ d.vector))
    joined: list[float] = np.mean(tokens, axis=0).tolist()
    start, stop = (0, item.n_prompt) if reader.aggregation.span == "prompt" else (item.n_prompt, len(item.ids))
    span = joined[start:stop]
    kind, parameter = reader.aggregation.kind, reader.aggregation.parameter
    if kind == "last":
        return span[-1]
    if kind == "mean":
        return sum(span) / len(span)
    if kind == "max_rolling_mean":
        w = min(int(parameter), len(span))
        return max(sum(span[i : i + w]) / w for i in range(len(span) - w + 1))
    average = best = span[0]
    for value in span[1:]:
        average = parameter * value + (1 - parameter) * average
        best = max(best, average)
    return best


@pytest.mark.parametrize("family", [*FAMILIES, *MULTIMODAL])
def test_a_score_does_not_depend_on_batch_mates_or_padding(family: str) -> None:
    chat = shared_chat(family)
    items = items_of(chat)
    readers = readers_of(chat.layout)
    scorer = Scorer(chat.layout, readers, chat.device)
    alone = torch.cat([scorer(collate([item], chat.device)).total for item in items])
    assert alone.isfinite().all()
    assert alone.std(0).min() > 1e-3  # the messages do differ
    together = scorer(collate(items, chat.device)).total
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    order = [3, 0, 4, 1, 2]
    shuffled = scorer(collate([items[i] for i in order], chat.device)).total
    torch.testing.assert_close(shuffled, alone[order], atol=1e-4, rtol=0)
    batch = collate(items, chat.device)
    other = dataclasses.replace(batch, ids=torch.where(batch.mask, batch.ids, torch.tensor(77)))
    torch.testing.assert_close(scorer(other).total, alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.tensor(score_all(chat, items, readers)), alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_scores_are_those_of_plain_arithmetic(family: str) -> None:
    chat = shared_chat(family)
    items, readers = items_of(chat), readers_of(chat.layout)
    wanted = [[slow_scores(chat, item, reader) for reader in readers] for item in items]
    np.testing.assert_allclose(score_all(chat, items, readers), wanted, atol=1e-4)


def test_units_are_class_gaps() -> None:
    """The aligned mean scores 0 and the misaligned mean 1, whatever the direction's length."""
    chat = shared_chat("llama")
    item = encode(chat, user("Hello"))
    seen: list[torch.Tensor] = []
    with torch.no_grad(), observing(chat.layout, {Site("residual", 1): seen.append}) as run:
        run(input_ids=torch.tensor([item.ids]))
    here = seen[0][0, -1].double().numpy()
    gap = np.linspace(-4, 4, 32)
    at = Site("residual", 1)
    readers = [
        Reader((Direction(at, gap, centre, 1.0),), Aggregation("last", "prompt"))
        for centre in (here, here - gap, here + gap)
    ]
    np.testing.assert_allclose(score_all(chat, [item], readers)[0], [0, 1, -1], atol=1e-5)


def test_parts_are_the_scores_of_each_direction_in_their_order() -> None:
    chat = shared_chat("llama")
    readers = readers_of(chat.layout)
    many = [r for r in readers if len(r.directions) == 3]
    batch = collate(items_of(chat), chat.device)
    scores = Scorer(chat.layout, many, chat.device)(batch)
    for r, reader in enumerate(many):
        for d, one in enumerate(reader.directions):
            single = Scorer(chat.layout, [Reader((one,), reader.aggregation)], chat.device)(batch).total[:, 0]
            torch.testing.assert_close(scores.parts[r][:, d], single, atol=1e-5, rtol=1e-5)


def test_maxima_are_taken_after_the_average_over_heads() -> None:
    chat = shared_chat("llama")
    heads = tuple(direction(chat.layout, Site("head", 1, h), seed=5) for h in range(4))
    scores = Scorer(chat.layout, [Reader(heads, Aggregation("max_rolling_mean", "prompt", 1))], chat.device)(
        collate(items_of(chat), chat.device)
    )
    # Max of means is under mean of maxima, and strictly so for heads that peak at different tokens.
    assert (scores.total[:, 0] < scores.parts[0].mean(1) - 1e-3).all()


def test_a_message_without_a_response_is_nan_and_its_mates_are_scored() -> None:
    chat = shared_chat("llama")
    items = [encode(chat, user("no answer")), encode(chat, user("an answer"), "here")]
    reader = Reader((direction(chat.layout, Site("final")),), Aggregation("mean", "response"))
    first, second = score_all(chat, items, [reader])[:, 0].tolist()
    assert math.isnan(first)
    assert math.isfinite(second)


def test_many_messages_come_back_in_their_order() -> None:
    chat = shared_chat("gpt2")
    items = [encode(chat, user("z" * (n * 37 % 91))) for n in range(90)]
    assert len(list(batches(items, chat.device))) > 1
    reader = Reader((direction(chat.layout, Site("residual", 1)),), Aggregation("mean", "prompt"))
    told: list[int] = []
    together = score_all(chat, items, [reader], told.append)[:, 0]
    assert sum(told) == 90
    for i in (0, 1, 45, 89):
        assert together[i] == pytest.approx(score_all(chat, [items[i]], [reader])[0, 0], abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_lower_precisions_score_near_float32(dtype: torch.dtype) -> None:
    exact, low = shared_chat("llama"), tiny_chat("llama", dtype=dtype)
    readers = readers_of(exact.layout)
    items = items_of(exact)
    far = np.abs(score_all(low, items, readers) - score_all(exact, items, readers))
    assert np.isfinite(far).all()
    assert far.max() < 0.1


def test_a_direction_that_does_not_fit_is_refused_before_the_forward_pass() -> None:
    layout = shared_chat("llama").layout
    narrow = Direction(Site("head", 0, 0), np.ones(8), np.zeros(8), 1.0)
    with pytest.raises(DirectionError, match=r"head\[0,0\]: 8 values, the site has 12"):
        Scorer(layout, [Reader((narrow,), AGGREGATIONS[0])], torch.device("cpu"))
    deep = Direction(Site("residual", 3), np.ones(32), np.zeros(32), 1.0)
    with pytest.raises(SiteError, match=r"blocks 0\.\.2"):
        Scorer(layout, [Reader((deep,), AGGREGATIONS[0])], torch.device("cpu"))
