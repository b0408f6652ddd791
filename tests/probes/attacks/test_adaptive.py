"""The adaptive attacker: it lowers what can be lowered, keeps the message, and counts its queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from probes.attacks.adaptive import METHODS, AdaptivePlan, Method, run_adaptive, search
from probes.attacks.attempts import MOST_WORDS, Attempt, RandomProposals, words_of
from probes.attacks.base import rng_of
from probes.attacks.gradient import GradientProposals
from probes.attacks.picture import plot_adaptive
from probes.capture.batches import collate, encode
from probes.card import Probe
from probes.errors import DataError
from probes.model.load import ChatModel, user_message
from probes.reading import Conversation, score_conversations
from probes.scoring import Scorer
from tests.probes.model.templates import TEMPLATES, chat_with
from tests.support.models.tiny import tiny_chat
from tests.support.stream.worker import make_probe

TEXTS = ["quiet rain falls on the roof", "warm tea in the afternoon,", "a green hat and a red scarf"]
WORDS = words_of(TEXTS)
HARMFUL = [
    Conversation([{"role": "system", "content": "Be kind."}, *user_message(f"zebra trouble number {n}!")])
    for n in range(4)
]


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return tiny_chat()


def reading(
    chat: ChatModel, aggregation: str, sites: Sequence[str] = ("residual[1]",), threshold: float = 0.0
) -> Probe:
    """A probe along random directions; no reference text of its card has every span."""
    probe = make_probe(chat, sites=sites, threshold=threshold)
    return Probe(probe.card.model_copy(update={"aggregation": aggregation}), probe.directions)


def flagging(
    chat: ChatModel,
    aggregation: str = "last_prompt",
    margin: float = 5.0,
    sites: Sequence[str] = ("residual[1]",),
) -> Probe:
    """A probe that flags all of HARMFUL, the lowest of them by the margin."""
    lowest = float(score_conversations(chat, [reading(chat, aggregation, sites)], HARMFUL).min())
    return reading(chat, aggregation, sites, lowest - margin)


@pytest.mark.parametrize("method", METHODS)
def test_a_search_lowers_what_is_read_at_the_last_token(chat: ChatModel, method: Method) -> None:
    probe = flagging(chat)
    attempts, zero = search(chat, probe, HARMFUL, WORDS, AdaptivePlan(method, 40))
    for attempt, given in zip(attempts, HARMFUL, strict=True):
        assert attempt.history == sorted(attempt.history, reverse=True), "the best so far never rises"
        assert attempt.best < attempt.history[0]
        assert attempt.used <= 40
        # What the attacker ends with is what the worker would score, and the request is in it as it was.
        made = attempt.with_suffix(attempt.suffix)
        assert score_conversations(chat, [probe], [made])[0, 0] == pytest.approx(attempt.best, abs=1e-4)
        assert made.turns[0] == given.turns[0]
        assert made.turns[1]["content"].startswith(given.turns[1]["content"] + " ")
    assert zero is None if method == "random" else zero == 0


def test_a_gradient_finds_more_than_chance(chat: ChatModel) -> None:
    probe = flagging(chat, margin=100.0)
    lowered = {m: run_adaptive(chat, probe, HARMFUL, WORDS, AdaptivePlan(m, 60)).lowered for m in METHODS}
    assert lowered["gradient"] > lowered["random"] > 0


def test_nothing_behind_the_maximum_lowers_it(chat: ChatModel) -> None:
    """In a causal model the windows before a suffix do not depend on it; the gradient says so."""
    probe = flagging(chat, "max_rolling_mean(4, system)", margin=0.01)
    for method in METHODS:
        report = run_adaptive(chat, probe, HARMFUL, WORDS, AdaptivePlan(method, 20))
        assert [share.value for _, share in report.curve] == [1.0, 1.0, 1.0]
        assert report.lowered == pytest.approx(0, abs=1e-4)
        assert report.no_gradient == (1.0 if method == "gradient" else None)


def test_the_report_counts_by_budget(chat: ChatModel, tmp_path: Path) -> None:
    report = run_adaptive(chat, flagging(chat, margin=0.2), HARMFUL, WORDS, AdaptivePlan("random", 60, seed=2))
    shares = {budget: share.value for budget, share in report.curve}
    assert list(shares) == [0, 10, 25, 50, 60]
    assert shares[0] == 1
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares[60] < 1
    plain = report.plain()
    assert plain["curve"][0]["flagged"]["value"] == 1
    assert "rewording" in plain["not_tried"]
    assert "suffix" in plain["changes"]
    assert report == run_adaptive(chat, flagging(chat, margin=0.2), HARMFUL, WORDS, AdaptivePlan("random", 60, seed=2))
    plot_adaptive([report], tmp_path / "search.png")
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_flagged_is_left_alone(chat: ChatModel) -> None:
    probe = make_probe(chat, threshold=10.0**6)
    attempts, _ = search(chat, probe, HARMFUL, WORDS, AdaptivePlan("random", 10))
    assert [attempt.used for attempt in attempts] == [0] * 4


def test_suffixes_are_of_the_vocabulary_and_short() -> None:
    attempt, propose = Attempt(HARMFUL[0], rng_of(0, "test"), history=[0.0]), RandomProposals(WORDS)
    seen = set()
    for _ in range(400):
        ((suffix,),) = propose([attempt], 1)
        assert suffix.startswith(" ")
        assert set(suffix.split()) <= set(WORDS)
        assert 0 < len(suffix.split()) <= MOST_WORDS
        attempt.suffix = suffix
        seen.add(suffix)
    assert len(seen) > 300


# The gradient


def score_of(chat: ChatModel, probe: Probe, embedded: Tensor, mask: Tensor, span: Tensor) -> float:
    """A score from embedded tokens, by transformers' own hidden states in float64: nothing of the gradient's code."""
    states = chat.model(inputs_embeds=embedded, attention_mask=mask, output_hidden_states=True).hidden_states
    values = []
    for d in probe.directions:
        x = states[d.site.layer + 1]
        values.append((x.double() - torch.tensor(d.centre)) @ torch.tensor(d.vector / d.norm**2))
    return float(probe.aggregation(torch.stack(values, 2).mean(2, keepdim=True), span)[0, 0])


@pytest.mark.parametrize("aggregation", ["last_prompt", "mean(user)", "max_rolling_mean(4, user)"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_the_gradient_is_the_slope_of_the_score(family: str, aggregation: str) -> None:
    chat = tiny_chat(family, dtype=torch.float64)
    probe = reading(chat, aggregation, ("residual[0]", "residual[1]"))
    proposals = GradientProposals(chat, probe, WORDS, 512)
    item = encode(chat, user_message("zebra trouble with rain"), spans=True)
    (gradient,) = proposals.gradients([item])
    batch = collate([item], chat.device)
    embedded = chat.model.get_input_embeddings()(batch.ids)  # type: ignore[operator]
    span = batch.span(probe.aggregation.span)
    step = torch.randn(embedded.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = [score_of(chat, probe, embedded + sign * 1e-3 * step, batch.mask, span) for sign in (1, -1)]
    slope = float((gradient * step[0]).sum())
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=2e-2, abs=1e-3)


def test_heads_have_gradients_too() -> None:
    chat = tiny_chat()
    probe = make_probe(chat, sites=("head[1,2]", "head[2,0]"))
    (gradient,) = GradientProposals(chat, probe, WORDS, 512).gradients([encode(chat, HARMFUL[0].turns)])
    assert gradient.abs().sum() > 0
    report = run_adaptive(
        chat, flagging(chat, sites=("head[1,2]",), margin=50.0), HARMFUL, WORDS, AdaptivePlan("gradient", 30)
    )
    assert report.lowered > 0


@pytest.mark.parametrize("template", ["chatml", "llama3", "gemma", "qwen", "mistral"])
def test_the_tokens_of_a_suffix_are_found(template: str) -> None:
    chat = chat_with(TEMPLATES[template])
    probe = make_probe(chat)
    proposals = GradientProposals(chat, probe, WORDS, 512)
    for suffix in (" green hat", " tea user", " \u00e9 x!", " <|end|", "!"):
        attempt = Attempt(Conversation(user_message("zebra trouble!!")), rng_of(0, "test"))
        item = proposals._encode(attempt, suffix)
        own = chat.text_ids(suffix)
        places = proposals._places(attempt, item, own)
        assert list(places) == list(range(len(own)))
        assert [item.ids[place] for place in places.values()] == own
        before = chat.tokenizer.decode(item.ids[: places[0]])
        assert before.endswith("zebra trouble!!")


def test_candidates_are_text_that_a_person_could_send(chat: ChatModel) -> None:
    proposals = GradientProposals(chat, flagging(chat), WORDS, 512)
    attempts = [Attempt(each, rng_of(0, str(i)), history=[1.0]) for i, each in enumerate(HARMFUL)]
    for suffixes in proposals(attempts, 10):
        assert len(suffixes) == 9
        for suffix in suffixes:
            assert suffix.isprintable()
            assert "\ufffd" not in suffix
            assert chat.control_tokens([suffix]) == 0
    assert [len(suffixes) for suffixes in proposals(attempts, 4)] == [3] * 4


def test_the_scorer_and_the_gradient_read_the_same(chat: ChatModel) -> None:
    """One step along the gradient changes the scorer's own score as far as the gradient says."""
    probe = reading(chat, "mean(user)")
    item = encode(chat, HARMFUL[0].turns, spans=True)
    (gradient,) = GradientProposals(chat, probe, WORDS, 512).gradients([item])
    scorer = Scorer(chat.layout, [probe.reader], chat.device)
    before = float(scorer(collate([item], chat.device)).total[0, 0])
    # A token that is there once: its embedding is changed.
    place = next(i for i, token in enumerate(item.ids) if i > 12 and item.ids.count(token) == 1)
    weight = chat.model.get_input_embeddings().weight  # type: ignore[operator]
    here, step = item.ids[place], 1e-2 * gradient[place] / gradient[place].norm()
    with torch.no_grad():
        weight[here] += step
        after = float(scorer(collate([item], chat.device)).total[0, 0])
        weight[here] -= step
    assert after - before == pytest.approx(float((gradient[place] * step).sum()), rel=0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plan": AdaptivePlan("random", 0)}, "queries: 0; give at least 1"),
        ({"plan": AdaptivePlan("guess")}, "adaptive: 'guess' is none of random, gradient"),  # type: ignore[arg-type]
        ({"harmful": []}, "harmful: no messages"),
        ({"vocabulary": []}, "benign: no words"),
    ],
)
def test_mistakes_are_named(chat: ChatModel, change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"harmful": HARMFUL, "vocabulary": WORDS, "plan": AdaptivePlan()} | change
    with pytest.raises(DataError, match=said):
        run_adaptive(chat, make_probe(chat), **given)


def test_words_are_taken_from_texts() -> None:
    assert words_of(["a b a", "b\u200bc d" + "x" * 30, "e"]) == ["a", "b", "e"]
