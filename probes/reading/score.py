"""Scores of conversations offline, read as the worker reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from probes.calibration import Values
from probes.capture.batches import batches
from probes.card import Probe
from probes.model.load import ChatModel
from probes.reading.conversation import Conversation
from probes.reading.readings import ReadingSettings, readings
from probes.reading.values import Value, candidates, decide, highest
from probes.scoring import Reader, Scorer

Found = list[list[Value]]


def score_conversations(
    chat: ChatModel,
    probes: Sequence[Probe],
    conversations: Sequence[Conversation],
    *,
    max_tokens: int = 2048,
    max_windows: int = 8,
    on_done: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Scores (conversations, probes) in class gaps; NaN where a probe's span is empty."""
    readers = [probe.reader for probe in probes]
    settings = ReadingSettings.of(readers, max_tokens=max_tokens, max_windows=max_windows)
    of_length = [probe.card.calibration.length is not None for probe in probes]
    scores = np.full((len(conversations), len(probes)), np.nan)
    for i, found in enumerate(_read(chat, readers, conversations, settings, of_length, on_done)):
        for p, probe in enumerate(probes):
            decided = decide(probe.card.calibration, found[p])
            if decided is not None:
                scores[i, p] = decided.score
    return scores


def read_values(
    chat: ChatModel,
    readers: Sequence[Reader],
    conversations: Sequence[Conversation],
    *,
    max_tokens: int = 2048,
    max_windows: int = 8,
    on_done: Callable[[int], None] = lambda _: None,
) -> Values:
    """The highest value of each conversation under readers that are not calibrated yet, and the tokens it is of."""
    settings = ReadingSettings.of(readers, max_tokens=max_tokens, max_windows=max_windows)
    values = np.full((len(conversations), len(readers)), np.nan)
    tokens = np.zeros((len(conversations), len(readers)), dtype=np.int64)
    for i, found in enumerate(_read(chat, readers, conversations, settings, [True] * len(readers), on_done)):
        for r, each in enumerate(found):
            best = highest(each)
            if best is not None:
                values[i, r], tokens[i, r] = best.value, best.tokens
    return Values(values, tokens)


def _read(
    chat: ChatModel,
    readers: Sequence[Reader],
    conversations: Sequence[Conversation],
    settings: ReadingSettings,
    windows: Sequence[bool],
    on_done: Callable[[int], None],
) -> list[Found]:
    """What speaks for each conversation under each reader."""
    scorer = Scorer(chat.layout, readers, chat.device)
    read = [readings(chat, conversation, settings) for conversation in conversations]
    flat = [(i, reading) for i, one in enumerate(read) for reading in one.all if reading.encoded.ids]
    values: list[list[list[Value]]] = [[[] for _ in readers] for _ in conversations]
    made: dict[int, list[Value]] = {}
    for batch in batches([reading.encoded for _, reading in flat], chat.device):
        scores = scorer(batch)
        for position, row in enumerate(batch.rows):
            kind = flat[row][1].kind
            made[row] = [
                Value(kind, float(scores.total[position, r]), int(scores.counts[position, r]))
                for r in range(len(readers))
            ]
        on_done(len(batch.rows))
    for row, (i, _) in enumerate(flat):
        for r, value in enumerate(made[row]):
            values[i][r].append(value)
    return [
        [
            candidates(reader.aggregation, [x for x in one.all if x.encoded.ids], values[i][r], windows=windows[r])
            for r, reader in enumerate(readers)
        ]
        for i, one in enumerate(read)
    ]
