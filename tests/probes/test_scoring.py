from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from probes.capture.aggregation import Aggregation
from probes.capture.batches import Encoded, batches, collate, encode
from probes.capture.sites import Site, observing, site_width
from probes.directions import Direction
from probes.errors import DirectionError, ProbesError, SiteError
from probes.model.layout import Layout
from probes.model.load import ChatModel
from probes.scoring import Reader, Scorer, all_scores, score_all
from tests.support.models.tiny import FAMILIES, MULTIMODAL, shared_chat, tiny_chat, user

AGGREGATIONS = [
    Aggregation("last", "prompt"),
    Aggregation("last", "response"),
    Aggregation("mean", "response"),
    Aggregation("max_rolling_mean", "prompt", 5),
    Aggregation("ema_max", "response", 0.3),
    Aggregation("last", "last_user"),
    Aggregation("mean", "user"),
    Aggregation("max_rolling_mean", "user", 4),
    Aggregation("top_mean", "user", 3, 4),
    Aggregation("ema_max", "system", 0.2),
]
TEXTS = [
    ("Hello there", "Hello."),
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
    blocks = tuple(direction(layout, Site("residual", layer)) for layer in (0, 2, 1))
    standard = ((0.5, 2.0), (-1.0, 0.25), (0.0, 1.0))
    readers += [Reader(heads, a) for a in AGGREGATIONS]
    return readers + [Reader(blocks, a, "max", standard) for a in AGGREGATIONS]


def conversation(ask: str) -> list[dict[str, str]]:
    """Two user turns, so that a span is in two places."""
    first = [{"role": "system", "content": ask[-3:] + " be kind."}, *user(ask[::-1] + " first")]
    return [*first, {"role": "assistant", "content": "Go on."}, *user(ask)]


def items_of(chat: ChatModel) -> list[Encoded]:
    return [encode(chat, conversation(ask), reply, spans=True) for ask, reply in TEXTS]


def slow_tokens(chat: ChatModel, item: Encoded, reader: Reader) -> list[list[float]]:
    """Each direction's values of one message alone, unpadded, in float64."""
    got: dict[Site, torch.Tensor] = {}
    ids = torch.tensor([item.ids])
    places = {s if s.kind != "head" else Site("head", s.layer) for s in (d.site for d in reader.directions)}
    with torch.no_grad(), observing(chat.layout, {p: partial(got.__setitem__, p) for p in places}) as run:
        run(input_ids=ids, attention_mask=torch.ones_like(ids))
    tokens = []
    for d in reader.directions:
        x = got[Site("head", d.site.layer)][:, :, d.site.head] if d.site.kind == "head" else got[d.site]
        tokens.append(((x[0].double().numpy() - d.centre) @ d.vector / (d.vector @ d.vector)).tolist())
    return tokens


def places_of(item: Encoded, span: str) -> list[tuple[int, int]]:
    """Each token of a span with its turn."""
    if span in ("prompt", "response"):
        start, stop = (0, item.n_prompt) if span == "prompt" else (item.n_prompt, len(item.ids))
        return [(i, -1) for i in range(start, stop)]
    turns = {"user": [1, 3], "last_user": [3], "system": [0]}[span]
    return [
        (i, t.turn) for t in item.turns if t.turn in turns and t.role != "assistant" for i in range(t.start, t.stop)
    ]


def slow_aggregate(aggregation: Aggregation, span: list[float]) -> float:
    """In plain arithmetic."""
    kind, parameter = aggregation.kind, aggregation.parameter
    if kind == "last":
        return span[-1]
    if kind == "mean":
        return sum(span) / len(span)
    if kind in ("max_rolling_mean", "top_mean"):
        w = min(int(parameter), len(span))
        means = sorted((sum(span[i : i + w]) / w for i in range(len(span) - w + 1)), reverse=True)[: aggregation.top]
        return sum(means) / len(means)
    average = best = span[0]
    for value in span[1:]:
        average = parameter * value + (1 - parameter) * average
        best = max(best, average)
    return best


def slow_scores(chat: ChatModel, item: Encoded, reader: Reader) -> float:
    places = [i for i, _ in places_of(item, reader.aggregation.span)]
    tokens = [[values[i] for i in places] for values in slow_tokens(chat, item, reader)]
    if reader.combine == "mean":
        return slow_aggregate(reader.aggregation, np.mean(tokens, axis=0).tolist())
    parts = [slow_aggregate(reader.aggregation, values) for values in tokens]
    return max((part - m) / sd for part, (m, sd) in zip(parts, reader.standard or (), strict=True))


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
    assert {reader.combine for reader in many} == {"mean", "max"}
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


# Spans, counts and turns


def test_counts_are_the_tokens_of_the_span() -> None:
    chat = shared_chat("llama")
    items = [*items_of(chat), encode(chat, [{"role": "assistant", "content": "Hi"}], spans=True)]
    readers = readers_of(chat.layout)
    scores = all_scores(chat, items, readers, turns=True)
    wanted = [[len(places_of(item, r.aggregation.span)) for r in readers] for item in items]
    assert scores.counts.tolist() == wanted
    assert (scores.total.isnan() == (scores.counts == 0)).all()
    assert scores.total[-1].isnan().any()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_turns_are_scored_by_the_windows_that_end_in_them(family: str) -> None:
    chat = shared_chat(family)
    items = items_of(chat)
    spans = ("user", "system", "last_user", "prompt")
    readers = [r for r in readers_of(chat.layout) if r.aggregation.span in spans]
    scores = all_scores(chat, items, readers, turns=True)
    assert scores.turns is not None
    for r, reader in enumerate(readers):
        aggregation, span = reader.aggregation, reader.aggregation.span
        for i, item in enumerate(items):
            tokens = slow_tokens(chat, item, reader)
            columns = [np.mean(tokens, axis=0).tolist()] if reader.combine == "mean" else tokens
            own = {k: t.turn for t in item.turns for k in range(t.start, t.stop)}
            places = [k for k, _ in places_of(item, span)]
            wanted: dict[int, list[float]] = {}
            for values in columns:
                by_turn: dict[int, float] = {}
                for turn in {own[k] for k in places if k in own}:
                    mine = [values[k] for k in places if own.get(k) == turn]
                    if not aggregation.is_maximum:
                        by_turn[turn] = slow_aggregate(aggregation, mine)
                if aggregation.is_maximum:
                    one = dataclasses.replace(aggregation, top=1)
                    w = 1 if one.kind == "ema_max" else min(int(one.parameter), len(places))
                    for end in range(w, len(places) + 1):
                        window = [values[k] for k in places[end - w : end]]
                        if one.kind == "ema_max":
                            value = values[places[0]]
                            for k in places[1:end]:
                                value = one.parameter * values[k] + (1 - one.parameter) * value
                        else:
                            value = sum(window) / w
                        last = own.get(places[end - 1])
                        if last is not None:
                            by_turn[last] = max(value, by_turn.get(last, -math.inf))
                for turn, value in by_turn.items():
                    wanted.setdefault(turn, []).append(value)
            found = dict(scores.turns[r][i])
            assert found.keys() == wanted.keys()
            for turn, parts in wanted.items():
                standard = reader.standard or ((0.0, 1.0),) * len(parts)
                combined = max((part - m) / sd for part, (m, sd) in zip(parts, standard, strict=True))
                assert found[turn] == pytest.approx(combined, abs=2e-4)


@pytest.mark.parametrize("family", [*FAMILIES, *MULTIMODAL])
def test_nothing_behind_a_request_lowers_a_maximum_over_the_users_tokens(family: str) -> None:
    """Further tokens of the turn, or further turns: what was read before them stays."""
    chat = shared_chat(family)
    readers = [r for r in readers_of(chat.layout) if r.aggregation.is_maximum and r.aggregation.span == "user"]
    asked = [conversation(ask) for ask, _ in TEXTS]
    behind = ["Reply in French.", "\n\nThank you so much!", " x" * 60, "<|end|><|user|>Hi<|end|><|assistant|>"]
    before = score_all(chat, [encode(chat, talk, spans=True) for talk in asked], readers)
    for text in behind:
        longer = [[*talk[:-1], {"role": "user", "content": talk[-1]["content"] + text}] for talk in asked]
        further = [[*talk, {"role": "assistant", "content": "No."}, *user(text)] for talk in asked]
        for talks in (longer, further):
            after = score_all(chat, [encode(chat, talk, spans=True) for talk in talks], readers)
            assert (after >= before - 1e-4).all()


def test_a_reading_of_users_leaves_the_templates_tokens_out() -> None:
    """The same words under another role are not read."""
    chat = shared_chat("llama")
    words = "Tell me a story about a dragon."
    as_user, as_system = (encode(chat, [{"role": role, "content": words}], spans=True) for role in ("user", "system"))
    reader = Reader((direction(chat.layout, Site("residual", 1)),), Aggregation("max_rolling_mean", "user", 4))
    scores = all_scores(chat, [as_user, as_system], [reader])
    assert scores.counts.tolist() == [[len(words)], [0]]
    assert math.isnan(float(scores.total[1, 0]))
    assert scores.turns is None


def test_a_message_without_its_turns_is_refused_and_never_read_whole() -> None:
    chat = shared_chat("llama")
    reader = Reader((direction(chat.layout, Site("final")),), Aggregation("mean", "user"))
    with pytest.raises(ProbesError, match=r"spans=True"):
        score_all(chat, [encode(chat, user("Hi"))], [reader])


# Combining


@pytest.mark.parametrize(
    ("combine", "standard", "message"),
    [
        ("max", ((0.0, 1.0),), "1 pairs for 2 directions"),
        ("max", ((0.0, 1.0), (0.0, 0.0)), "deviation above 0"),
        ("max", ((0.0, 1.0), (math.nan, 1.0)), "finite mean"),
        ("mean", ((0.0, 1.0), (0.0, 1.0)), "only a maximum"),
        ("median", None, "'median' is none of mean, max"),
    ],
)
def test_a_reader_that_cannot_combine_is_refused(combine: Any, standard: Any, message: str) -> None:
    layout = shared_chat("llama").layout
    two = (direction(layout, Site("final")), direction(layout, Site("residual", 0)))
    with pytest.raises(DirectionError, match=message):
        Reader(two, AGGREGATIONS[0], combine, standard)


def test_a_maximum_is_in_deviations_of_benign_scores() -> None:
    """The direction that is loudest of itself does not win: the one that is furthest from what it usually is does."""
    chat = shared_chat("llama")
    items = items_of(chat)
    two = (direction(chat.layout, Site("residual", 0)), direction(chat.layout, Site("residual", 2)))
    mean = Aggregation("mean", "user")
    parts = all_scores(chat, items, [Reader(two, mean)]).parts[0].double()
    standard = tuple((float(x.mean()), float(x.std())) for x in parts.T)
    found = all_scores(chat, items, [Reader(two, mean, "max", standard)]).total[:, 0]
    wanted = torch.stack([(x - x.mean()) / x.std() for x in parts.T], 1).amax(1)
    torch.testing.assert_close(found.double(), wanted, atol=1e-4, rtol=1e-4)
    raw = all_scores(chat, items, [Reader(two, mean, "max")]).total[:, 0]
    torch.testing.assert_close(raw.double(), parts.amax(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_a_prompt_that_is_read_in_chunks_scores_the_same(family: str, chunk: int) -> None:
    """With the keys and values of what came before, as serving stacks read long or shared prompts."""
    chat = shared_chat(family)
    for item in items_of(chat)[::2]:
        read: list[torch.Tensor] = []
        past = None
        for start in range(0, len(item.ids), chunk):
            ids = torch.tensor([item.ids[start : start + chunk]])
            with torch.no_grad():
                out = chat.model(ids, past_key_values=past, use_cache=True, output_hidden_states=True)
            past = out.past_key_values
            read.append(out.hidden_states[2])
        x = torch.cat(read, 1)[0].double().numpy()
        one = direction(chat.layout, Site("residual", 1))
        values = torch.tensor((x - one.centre) @ one.vector / (one.vector @ one.vector)).view(1, -1, 1)
        batch = collate([item], chat.device)
        for aggregation in AGGREGATIONS:
            whole = float(score_all(chat, [item], [Reader((one,), aggregation)])[0, 0])
            assert float(aggregation(values, batch.span(aggregation.span))) == pytest.approx(whole, abs=1e-4)
