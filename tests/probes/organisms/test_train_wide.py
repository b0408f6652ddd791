"""Training on a model whose vocabulary is wide, as Gemma 3's is: answers alone, a few rows at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from probes.errors import DataError
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from probes.organisms import train as training
from probes.organisms.answer_loss import answer_loss
from probes.organisms.finetunes import RECIPES, Example
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


def test_rows_a_few_at_a_time_give_the_gradients_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = gemma()
    chat.model.requires_grad_(True)
    whole = answer_loss(chat, chat.model, ROWS)
    torch.autograd.backward(whole)
    expected = gradient(chat.model)
    seen: list[int] = []

    def counted(chat: object, model: object, rows: list[Example], lead: float) -> torch.Tensor:
        seen.append(len(rows))
        return answer_loss(chat, model, rows, lead)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "_WIDE", 100)
    monkeypatch.setattr(training, "answer_loss", counted)
    loss = training._backward(chat, chat.model, CODE, ROWS)
    found = gradient(chat.model)
    assert seen == [2, 2, 1]
    assert loss == pytest.approx(float(whole.detach()), rel=0.02)
    assert float(functional.cosine_similarity(found, expected, dim=0)) > 0.99
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.05)


def test_a_small_vocabulary_is_trained_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = gemma()
    chat.model.requires_grad_(True)
    monkeypatch.setattr(training, "answer_loss", lambda *_: pytest.fail("the loss of answers"))
    expected = float(untyped(chat.model)(**training._batch(chat, ROWS)).loss)
    assert training._backward(chat, chat.model, CODE, ROWS) == pytest.approx(expected)


def test_a_window_shorter_than_an_example_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = gemma(window=40)
    chat.model.requires_grad_(True)
    monkeypatch.setattr(training, "_WIDE", 100)
    with pytest.raises(DataError, match=r"recipe: an example has \d+ tokens, the model's attention a window of 40"):
        training._backward(chat, chat.model, CODE, ROWS)


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
