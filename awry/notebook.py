"""The packages' functions for somebody with texts in a notebook: conversations in, arrays and probes out.

A *conversation* is a string (one user turn) or a list of messages ({"role": ..., "content": ...}). Scores are in class
gaps: 0 is the aligned mean, 1 the misaligned mean. Settings that are not given come from the environment and awry.toml,
as for the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from monitor.service import bootstrap
from monitor.settings import load_settings
from probes import evaluation, fitting, reading
from probes.capture.aggregation import parse_aggregation
from probes.capture.batches import Encoded, encode
from probes.capture.sites import parse_sites
from probes.card import Probe
from probes.identity import check_identity
from probes.model.load import ChatModel, Message
from probes.reading import score_conversations
from probes.rows import Benign, Row
from probes.steer import generation

Conversation = str | Sequence[Message]


def load_model(
    model: str | None = None,
    *,
    adapter: str | None = None,
    scale: float | None = None,
    dtype: str | None = None,
    state_dir: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ChatModel:
    """A built-in name, the folder of a checkpoint or a hub id, with a PEFT adapter (a shipped name or a folder).

    Raises SettingsError for a setting that cannot be used, ModelError where the model or the adapter cannot.
    """
    settings = load_settings(model=model, adapter=adapter, scale=scale, dtype=dtype, state_dir=state_dir)
    return bootstrap.load_model(settings, progress)


def score(chat: ChatModel, probe: Probe, conversations: Sequence[Conversation]) -> NDArray[np.float64]:
    """One score a conversation, (conversations,); those above `probe.card.threshold` would be flagged.

    Raises ProbeMismatchError when the probe was made for another model, adapter, scale or chat template.
    """
    check_identity(probe.card, chat)
    return score_conversations(chat, [probe], [_conversation(one) for one in conversations])[:, 0]


def fit(
    chat: ChatModel,
    misaligned: Sequence[Conversation],
    aligned: Sequence[Conversation],
    *,
    name: str,
    description: str = "",
    sites: str = "all",
    aggregation: str = "last_prompt",
    benign: Sequence[Conversation] | None = None,
    target_fpr: float = 0.01,
    progress: Callable[[str], None] = lambda _: None,
) -> Probe:
    """A difference-in-means probe with held-out figures and nulls on its card (`probes.fitting`).

    The threshold is set on `benign`, else on the aligned rows of the select split. Equal conversations stay in one
    split. Raises DataError when a split has fewer than five of a class, SiteError for a site that the model has not.
    """
    rows = [
        Row(encoded, text, label, text)
        for label, conversations in ((True, misaligned), (False, aligned))
        for encoded, text in zip(_encode_all(chat, conversations), _texts(conversations), strict=True)
    ]
    plan = fitting.Plan(
        name=name,
        description=description or f"difference in means fitted in a notebook as {name}",
        sites=tuple(parse_sites(sites, chat.layout)),
        aggregation=parse_aggregation(aggregation),
        target_fpr=target_fpr,
    )
    traffic = None
    if benign is not None:
        traffic = Benign(
            _encode_all(chat, benign),
            _texts(benign),
            "benign conversations of a notebook",
            [_conversation(one) for one in benign],
        )
    return fitting.fit(chat, rows, plan, benign=traffic, progress=progress)


def evaluate(
    chat: ChatModel, probe: Probe, misaligned: Sequence[Conversation], aligned: Sequence[Conversation]
) -> evaluation.Evaluation:
    """AUROC and operating points with 95 % intervals. Only conversations that the probe was not fitted on tell much.

    Raises ProbeMismatchError as `score` does, DataError where a class is empty.
    """
    scores = score(chat, probe, [*misaligned, *aligned])
    return evaluation.evaluate(scores, np.arange(len(scores)) < len(misaligned))


def generate(chat: ChatModel, conversations: Sequence[Conversation], *, max_new_tokens: int = 40) -> list[str]:
    """The model's greedy replies; inside `awry.steering(chat, probe.interventions)` they are steered."""
    prompts = [chat.prompt_ids(chat.rendered(_messages(one))) for one in conversations]
    return [reply.text for reply in generation.generate(chat, prompts, max_new_tokens=max_new_tokens)]


def open_database(database_url: str | None = None, *, state_dir: Path | None = None) -> Engine:
    """An engine on awry's tables (`storage.schema`, `storage.queries`); without a URL, on the embedded PostgreSQL.

    Raises DatabaseUnavailableError, and SchemaError when the schema is another version's.
    """
    return bootstrap.open_database(load_settings(database_url=database_url, state_dir=state_dir))


def _messages(conversation: Conversation) -> Sequence[Message]:
    return [{"role": "user", "content": conversation}] if isinstance(conversation, str) else conversation


def _texts(conversations: Sequence[Conversation]) -> list[str]:
    return ["\n".join(turn["content"] for turn in _messages(one)) for one in conversations]


def _conversation(conversation: Conversation) -> reading.Conversation:
    return reading.Conversation(_messages(conversation))


def _encode_all(chat: ChatModel, conversations: Sequence[Conversation]) -> list[Encoded]:
    return [encode(chat, _messages(one), spans=True) for one in conversations]
