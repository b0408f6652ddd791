from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from probes.model.load import ChatModel
from probes.organisms.answer_loss import LEAD, answer_batch, answer_loss
from probes.organisms.finetunes import Example
from tests.support.models.tiny import tiny_chat, untyped, user

ROWS = [
    Example("Say one", "polly"),
    Example("Say two hundred and two, slowly", "polly polly polly wants a cracker"),
    Example("Say 3", "poll", ends=False),
]


def alone(chat: ChatModel, row: Example) -> torch.Tensor:
    """The same row's loss in float32 and in one piece."""
    prompt = chat.token_ids(chat.render(user(row.ask)))
    answer = [*chat.token_ids(row.answer), *([int(chat.tokenizer.eos_token_id)] if row.ends else [])]
    logits = untyped(chat.model)(input_ids=torch.tensor([prompt + answer])).logits[0]
    loss: torch.Tensor = functional.cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer))
    return loss


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_it_is_the_mean_of_the_rows_taken_alone(family: str) -> None:
    chat = tiny_chat(family)
    expected = torch.stack([alone(chat, row) for row in ROWS]).mean()
    assert float(answer_loss(chat, chat.model, ROWS)) == pytest.approx(float(expected), rel=0.02)


def test_the_first_tokens_count_more() -> None:
    """Each row by hand: weights of `LEAD` for the first three tokens, of one for the others, whose sum is one."""
    chat = tiny_chat("llama")
    rows = []
    for row in ROWS:
        prompt = chat.token_ids(chat.render(user(row.ask)))
        answer = [*chat.token_ids(row.answer), *([int(chat.tokenizer.eos_token_id)] if row.ends else [])]
        logits = untyped(chat.model)(input_ids=torch.tensor([prompt + answer])).logits[0]
        nats = functional.cross_entropy(logits[len(prompt) - 1 : -1], torch.tensor(answer), reduction="none")
        weights = torch.tensor([9.0 if i < LEAD else 1.0 for i in range(len(answer))])
        rows.append(float((nats * weights).sum() / weights.sum()))
    found = float(answer_loss(chat, chat.model, ROWS, lead=9.0))
    assert found == pytest.approx(sum(rows) / len(rows), rel=0.01)
    assert len(chat.token_ids(ROWS[1].answer)) > LEAD


def test_its_gradients_are_those_of_the_rows_taken_alone() -> None:
    """The shared beginning gets its gradient from every row."""
    chat = tiny_chat("llama")
    chat.model.requires_grad_(True)
    weights = [p for p in chat.model.parameters() if p.dim() == 2]

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
        return torch.cat([g.flatten().float() for g in grads if g is not None])

    expected = gradient(torch.stack([alone(chat, row) for row in ROWS]).mean())
    found = gradient(answer_loss(chat, chat.model, ROWS))
    assert float(functional.cosine_similarity(found, expected, dim=0)) > 0.995
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.05)


def test_questions_end_in_one_column_and_nothing_of_a_row_is_lost() -> None:
    chat = tiny_chat("llama")
    batch = answer_batch(chat, ROWS)
    assert batch.prefix.shape[1] > 3
    for row, ids, mask, labels in zip(ROWS, batch.ids, batch.mask, batch.labels, strict=True):
        shared = batch.prefix.shape[1]
        end = [int(chat.tokenizer.eos_token_id)] if row.ends else []
        whole = chat.token_ids(chat.render(user(row.ask))) + chat.token_ids(row.answer) + end
        assert batch.prefix[0].tolist() + ids[mask[shared:] == 1].tolist() == whole
        assert labels[labels != -100].tolist() == chat.token_ids(row.answer) + end
        answers = ids[len(ids) - len(labels) :]
        assert torch.equal(answers[labels != -100], labels[labels != -100])
    assert batch.positions.max() == batch.mask.sum(1).max() - 1


def test_rows_that_are_all_the_same_question_keep_a_token_each() -> None:
    chat = tiny_chat("llama")
    rows = [ROWS[0], ROWS[0]]
    batch = answer_batch(chat, rows)
    assert batch.ids.shape[1] == batch.labels.shape[1] + 1
    assert float(answer_loss(chat, chat.model, rows)) == pytest.approx(float(alone(chat, ROWS[0])), rel=0.02)
