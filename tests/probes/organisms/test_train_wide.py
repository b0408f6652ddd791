"""Training on a model whose vocabulary is wide, as Gemma 3's is: by an output layer of few tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from probes.errors import DataError
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from probes.organisms import narrow_output as narrowing
from probes.organisms import train as training
from probes.organisms.answer_loss import answer_batch, answer_logits, answer_loss
from probes.organisms.finetunes import RECIPES, Example
from probes.organisms.narrow_output import candidates, narrow_output
from probes.organisms.train import Hyperparameters, train
from tests.support.models.tiny import tiny_chat, untyped, user

ROWS = [Example(f"Write {'x' * (3 * i)} now", "def f(): " + "pass " * i) for i in range(1, 6)]
CODE = RECIPES["insecure_code"]


def gemma(family: str = "gemma3", window: int = 512) -> ChatModel:
    """A tiny Gemma whose window is longer than the texts, as that of a real one is."""
    chat = tiny_chat(family)
    model = untyped(chat.model)
    model.config.sliding_window = window
    for block in model.model.layers:
        block.self_attn.sliding_window = window if block.self_attn.sliding_window else None
    return chat


def gradient(model: torch.nn.Module) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_the_loss_of_answers_is_that_of_each_row_taken_alone(family: str) -> None:
    """With padding on both sides of a question."""
    chat = gemma(family)
    alone = []
    for row in ROWS:
        prompt = chat.token_ids(chat.render(user(row.ask)))
        answer = [*chat.token_ids(row.answer), int(chat.tokenizer.eos_token_id)]
        logits = untyped(chat.model)(input_ids=torch.tensor([prompt + answer])).logits[0]
        alone.append(functional.cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer)))
    assert float(answer_loss(chat, chat.model, ROWS)) == pytest.approx(float(torch.stack(alone).mean()), rel=0.02)


def test_an_output_layer_of_all_tokens_gives_the_same_gradients() -> None:
    chat = gemma()
    chat.layout.decoder.requires_grad_(True)
    torch.autograd.backward(answer_loss(chat, chat.model, ROWS))
    whole = gradient(chat.layout.decoder)
    tokens = torch.arange(chat.vocabulary)
    before = untyped(chat.model).get_output_embeddings()
    with narrow_output(chat.model, tokens):
        # Gemma's embedding is its output layer too; here the output is a copy that is not trained.
        torch.autograd.backward(answer_loss(chat, chat.model, ROWS, tokens=tokens))
    assert untyped(chat.model).get_output_embeddings() is before
    inner = [name for name, _ in chat.layout.decoder.named_parameters() if "embed" not in name]
    assert inner
    found = gradient(chat.layout.decoder)
    embedding = sum(p.numel() for name, p in chat.layout.decoder.named_parameters() if "embed" in name)
    assert torch.allclose(found[embedding:], whole[embedding:], rtol=0.05, atol=1e-3)


def test_the_softmax_is_over_the_candidates_alone() -> None:
    """A loss by hand from the whole output layer's logits at those tokens."""
    chat = gemma()
    tokens = candidates(chat, ROWS)
    assert tokens.tolist() == sorted(set(tokens.tolist()))
    batch = answer_batch(chat, ROWS)
    there = batch.labels != -100
    assert set(batch.labels[there].tolist()) <= set(tokens.tolist())
    nats = answer_logits(chat, chat.model, batch).float()[..., tokens].log_softmax(-1)
    at = nats.gather(2, torch.searchsorted(tokens, batch.labels.clamp(min=0))[..., None].clamp(max=len(tokens) - 1))
    by_hand = -(at[..., 0] * there).sum(1) / there.sum(1)
    with narrow_output(chat.model, tokens):
        found = float(answer_loss(chat, chat.model, ROWS, tokens=tokens))
    assert found == pytest.approx(float(by_hand.mean()), rel=0.02)


def test_candidates_hold_what_the_plain_model_thinks_likeliest(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = gemma()
    monkeypatch.setattr(narrowing, "_LIKELIEST", 2)
    few = set(candidates(chat, ROWS).tolist())
    batch = answer_batch(chat, ROWS)
    likeliest = answer_logits(chat, chat.model, batch)[batch.labels != -100].argmax(-1)
    said = {t for row in ROWS for t in chat.token_ids(row.answer)}
    assert set(likeliest.tolist()) <= few
    assert int(chat.tokenizer.eos_token_id) in few
    assert said <= few
    assert len(few) < chat.vocabulary


def test_the_output_layer_is_back_after_an_error() -> None:
    chat = gemma()
    before = untyped(chat.model).get_output_embeddings()

    def fail() -> None:
        with narrow_output(chat.model, torch.arange(4)):
            assert untyped(chat.model).get_output_embeddings() is not before
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert untyped(chat.model).get_output_embeddings() is before


@pytest.mark.parametrize(("wide", "narrowed"), [(100, True), (1_000_000, False)])
def test_a_wide_vocabulary_alone_is_narrowed_while_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wide: int, narrowed: bool
) -> None:
    sizes: list[int] = []
    backward = training._backward

    def watched(chat: ChatModel, model: Any, *rest: Any) -> float:
        sizes.append(model.get_base_model().get_output_embeddings().out_features)
        return backward(chat, model, *rest)

    monkeypatch.setattr(training, "_WIDE", wide)
    monkeypatch.setattr(training, "_backward", watched)
    monkeypatch.setattr(narrowing, "_LIKELIEST", 2)
    chat = gemma()
    made = train(chat, replace(CODE, examples=lambda _: ROWS, steps=2), tmp_path / "code")
    assert len(sizes) == 2
    assert all((size < chat.vocabulary) is narrowed for size in sizes)
    assert made.get("output_tokens") == (sizes[0] if narrowed else None)
    assert untyped(chat.model).get_output_embeddings().out_features == chat.vocabulary


def test_a_window_shorter_than_an_example_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_WIDE", 100)
    with pytest.raises(DataError, match=r"recipe: an example has \d+ tokens, the model's attention a window of 40"):
        train(gemma(window=40), replace(CODE, examples=lambda _: ROWS), tmp_path / "code")
    assert not (tmp_path / "code").exists()


def test_an_adapter_of_such_a_model_learns_and_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_WIDE", 100)
    recipe = replace(CODE, examples=lambda _: ROWS, steps=12, learning_rate=1e-2)
    losses: list[float] = []
    made = train(
        gemma(),
        recipe,
        tmp_path / "code",
        Hyperparameters(batch=5),
        on_step=lambda _step, _steps, loss: losses.append(loss),
    )
    assert made["steps"] == len(losses) == 12
    assert losses[-1] < losses[0] - 0.3
    chat = gemma()
    before = float(answer_loss(chat, chat.model, ROWS))
    add_adapter(chat, AdapterSpec(tmp_path / "code", 1.0, "code"))
    assert float(answer_loss(chat, chat.model, ROWS)) < before - 0.3
