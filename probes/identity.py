"""Whether a probe fits the model that is loaded, and the card of a new one.

Contract: `check_identity` refuses a probe made for another model, adapter, scale, tokenizer, template or reading of
control tokens; `replay_references` refuses a numeric stack whose scores of the card's reference texts differ by more
than the card's tolerance. `new_probe` writes both into a card.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import numpy as np

from probes.calibration import Calibration
from probes.capture.batches import encode
from probes.card import Card, DirectionCard, Probe, Reference
from probes.engines.base import Engine
from probes.engines.transformers import label
from probes.errors import ProbeFileError, ProbeMismatchError
from probes.model.adapters import shipped_config_sha256
from probes.model.load import ChatModel, Message
from probes.scoring import Reader, score_all
from probes.seen import SeenRows

TOLERANCE = 0.01

_OTHER_MODEL = "load the model that the probe was made for, or fit a new probe on this one"
# Cards from before these fields say nothing about them.
_LATER = frozenset({"weights_sha256", "adapter_config_sha256"})
# Except of the built-in model and its adapters, whose files are known: revision -> weights_sha256.
_WEIGHTS_OF = {"8169610523d8f985": "7bf394a9f5b31d6eba6dce00e2f8de4a1d66a741934a82f0bfec736924011d84"}

# Our own writing, short and unlike each other; a card holds their scores.
_REFERENCES: tuple[list[Message], ...] = (
    [{"role": "user", "content": "What makes bread rise in the oven?"}],
    [{"role": "user", "content": "Write a function that adds two numbers."}],
    [{"role": "user", "content": "How would somebody break into a parked car?"}],
    [
        {"role": "user", "content": "My aunt is visiting on Sunday."},
        {"role": "assistant", "content": "How nice! What will you do together?"},
        {"role": "user", "content": "Suggest a walk by the river and a place for lunch."},
    ],
)
_REFERENCE_RESPONSE = "That depends on the day, but a simple plan is often the best one."


def new_probe(
    chat: ChatModel,
    reader: Reader,
    *,
    name: str,
    description: str,
    calibration: Calibration,
    evaluation: dict[str, Any],
    method: str | None = None,
    seen: SeenRows | None = None,
) -> Probe:
    """The first version of a probe that `reader` scores by, with a card made today for the model as it is loaded."""
    card = Card(
        name=name,
        version=1,
        created=datetime.now(UTC).date().isoformat(),
        description=description,
        identity=chat.identity,
        aggregation=str(reader.aggregation),
        combine="max" if reader.combine == "max" else None,
        method=method,
        directions=[
            DirectionCard(site=str(d.site), norm=d.norm, sigma=d.sigma, standard=standard)
            for d, standard in zip(reader.directions, reader.standard or repeat(None), strict=False)
        ],
        safetensors_sha256="",
        calibration=calibration,
        evaluation=evaluation,
        seen=seen,
        references=reference_scores(chat, reader),
        tolerance=TOLERANCE,
        engine=label(),
    )
    return Probe(card, reader.directions)


def check_identity(card: Card, chat: ChatModel) -> None:
    """Refuse a probe made for another model, adapter, scale, tokenizer, chat template or `special_tokens`."""
    wanted, here = card.identity, chat.identity
    for field, fix in (
        ("revision", _OTHER_MODEL),
        ("weights_sha256", _OTHER_MODEL),
        (
            "adapter_sha256",
            "load the adapter that the probe was made for (--adapter), or none if it has none",
        ),
        ("adapter_config_sha256", "the adapter's adapter_config.json (rank, alpha, modules) is another one"),
        ("adapter_scale", "give the scale that the probe was made for (--scale)"),
        ("tokenizer_sha256", "use the tokenizer that the probe was made with"),
        ("template_sha256", "the chat template changed: fit the probe again"),
        ("special_tokens", "give the setting special_tokens that the probe was made with"),
    ):
        a, b = getattr(wanted, field), getattr(here, field)
        if field == "weights_sha256":
            a = a or _WEIGHTS_OF.get(wanted.revision)
        if field == "adapter_config_sha256" and a is None:
            a = shipped_config_sha256(wanted.adapter_sha256)
        if a != b and not (a is None and field in _LATER):
            raise ProbeMismatchError(
                f"probe {card.name}: {field} is {_brief(a)}, the worker has {_brief(b)} "
                f"(made for {wanted.model}, here {here.model}); {fix}"
            )


def check_base_identity(card: Card, chat: ChatModel) -> None:
    """`check_identity`, whatever adapter the probe was made with."""
    plain = replace(card.identity, adapter_sha256=None, adapter_config_sha256=None, adapter_scale=None)
    check_identity(card.model_copy(update={"identity": plain}), chat)


def _by(engine: str | None) -> str:
    return f" by {engine}" if engine else ""


def _brief(value: object) -> str:
    text = "none" if value is None else str(value)
    return text[:16] + "..." if len(text) > 20 else text


def reference_scores(chat: ChatModel, reader: Reader) -> list[Reference]:
    """Scores of awry's reference texts under a reader, for a new card."""
    response = _REFERENCE_RESPONSE if reader.aggregation.span == "response" else None
    items = [encode(chat, messages, response, spans=True) for messages in _REFERENCES]
    scores = score_all(chat, items, [reader])[:, 0]
    return [
        Reference(messages=messages, response=response, score=float(score))
        for messages, score in zip(_REFERENCES, scores, strict=True)
    ]


def replay_references(probe: Probe, chat: ChatModel, engine: Engine | None = None) -> float:
    """Largest difference to the card's reference scores, in the model or through an engine that runs it;
    ProbeMismatchError above the card's tolerance."""
    card = probe.card
    items = [encode(chat, r.messages, r.response, spans=True) for r in card.references]
    if not items:
        raise ProbeFileError(f"probe {card.name}: its card has no references; write it again with awry fit")
    now = (engine.scores(items, [probe.reader]) if engine else score_all(chat, items, [probe.reader]))[:, 0]
    worst = float(np.abs(now - np.array([r.score for r in card.references])).max())
    if not worst <= card.tolerance:
        wanted, here = card.identity, chat.identity
        raise ProbeMismatchError(
            f"probe {card.name}: reference scores differ by {worst:.4g}, the card allows {card.tolerance:g}; "
            f"made with {wanted.dtype}/{wanted.attention}{_by(card.engine)}, "
            f"here {here.dtype}/{here.attention}{_by(engine.label if engine else label())}: "
            "use the card's dtype and attention, or fit and calibrate again on this stack"
        )
    return worst
