"""Exports a head-steering study's probe: a head-level detector, whose card then gets the recipe.

The detector is `probes.heads.detector`'s. Its threshold comes from benign messages with the base model's answers to
them, and beside the held-out choices it is tried on what the model in use itself wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probes.binary_choice import ChoiceSplits
from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.card import Probe
from probes.heads.detector import head_probe
from probes.model.load import ChatModel, user_message
from probes.rows import Benign, Row
from probes.steer.generation import generate
from probes.studies.metric import Metric


def detector(
    chat: ChatModel,
    splits: ChoiceSplits,
    candidates: Mapping[str, Sequence[Site]],
    benign: Sequence[str],
    test: Sequence[str],
    metric: Metric,
    *,
    name: str,
    max_new_tokens: int,
    target_fpr: float,
    seed: int,
) -> Probe:
    """Fit on the choices, calibrate on `benign`, try it on the model's own answers to `test`."""
    with chat.base():
        plain = _answered(chat, benign, max_new_tokens)
    own = _answered(chat, test, max_new_tokens)
    bad = metric([text for text, _ in own], [reply for _, reply in own])
    return head_probe(
        chat,
        splits,
        candidates,
        Benign(
            [encode(chat, user_message(text), reply) for text, reply in plain],
            [_joined(text, reply) for text, reply in plain],
            "benign messages with the base model's answers",
        ),
        name=name,
        description="Reads an answer at a few attention heads, found by a search for heads that steer.",
        target_fpr=target_fpr,
        seed=seed,
        own=[
            Row(encode(chat, user_message(text), reply), _joined(text, reply), bool(label), text)
            for (text, reply), label in zip(own, bad, strict=True)
        ],
    )


def _answered(chat: ChatModel, texts: Sequence[str], max_new_tokens: int) -> list[tuple[str, str]]:
    """Messages with what the model answered; empty answers are left out: there is nothing to read."""
    replies = generate(chat, [chat.render(user_message(t)) for t in texts], max_new_tokens=max_new_tokens)
    return [(text, a.text) for text, a in zip(texts, replies, strict=True) if a.text]


def _joined(text: str, reply: str) -> str:
    return f"{text}\n{reply}"
