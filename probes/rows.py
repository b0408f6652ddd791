"""Labelled rows and benign messages that probes are fitted, chosen, tested and calibrated on.

Contract: rows are split by *group* (a pair never straddles splits) into fit, select and test. `values_of` gives each
row's value under readers with the adapter that the row asks for, and the number of tokens that it is of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from probes.calibration import Values
from probes.capture.batches import Encoded
from probes.conditions import Condition
from probes.errors import DataError
from probes.model.load import ChatModel
from probes.reading.conversation import Conversation
from probes.scoring import Reader, all_scores
from probes.splits import SPLITS, split_of

AdapterState = Literal["active", "base"]


@dataclass(frozen=True)
class Row:
    """One labelled message. `adapter`: read with the adapter in use, or under the plain base weights.

    `conversation` is what `encoded` was made of, where attack families are to transform it.
    """

    encoded: Encoded
    text: str
    misaligned: bool
    group: str
    adapter: AdapterState = "active"
    conversation: Conversation | None = None


@dataclass(frozen=True)
class Benign:
    """Benign traffic for the threshold. With `conversations` it is read as the worker reads it, windows and all."""

    encoded: Sequence[Encoded]
    texts: Sequence[str]
    name: str
    conversations: Sequence[Conversation] | None = None


def split_rows(rows: Sequence[Row], seed: int = 0) -> dict[str, list[Row]]:
    """fit 50 %, select 20 %, test 30 %, by a hash of each row's group."""
    splits: dict[str, list[Row]] = {name: [] for name, _ in SPLITS}
    for row in rows:
        splits[split_of(row.group, seed)].append(row)
    for name, members in splits.items():
        bad = sum(r.misaligned for r in members)
        if bad < 5 or len(members) - bad < 5:
            raise DataError(
                f"labels: the {name} split has {bad} misaligned and {len(members) - bad} aligned rows; at least 5 of "
                "each are needed in every split (fit 50 %, select 20 %, test 30 %): give more rows"
            )
    return splits


def own_benign(rows: Sequence[Row], seed: int, name: str) -> Benign:
    """The aligned rows of the fit and select splits, where no other benign messages are at hand."""
    splits = split_rows(rows, seed)
    aligned = [r for part in ("fit", "select") for r in splits[part] if not r.misaligned]
    return Benign([r.encoded for r in aligned], [r.text for r in aligned], name)


def condition(chat: ChatModel, adapter: AdapterState) -> Condition:
    """The condition that a row asks for."""
    return Condition(chat, None if adapter == "base" else chat.active)


def by_adapter(rows: Sequence[Row]) -> list[tuple[AdapterState, list[int]]]:
    """Indices of the rows that are read with the adapter, and of those without; none is left out where it is empty."""
    both: tuple[AdapterState, ...] = ("active", "base")
    groups = [(adapter, [i for i, r in enumerate(rows) if r.adapter == adapter]) for adapter in both]
    return [(adapter, indices) for adapter, indices in groups if indices]


def values_of(chat: ChatModel, rows: Sequence[Row], readers: Sequence[Reader]) -> Values:
    """Values of the rows under all readers."""
    values = np.empty((len(rows), len(readers)))
    tokens = np.empty((len(rows), len(readers)), dtype=np.int64)
    for adapter, indices in by_adapter(rows):
        with condition(chat, adapter).applied():
            scored = all_scores(chat, [rows[i].encoded for i in indices], readers)
            values[indices], tokens[indices] = scored.total.numpy(), scored.counts.numpy()
    return Values(values, tokens)


def labels_of(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Which rows are misaligned."""
    return np.array([r.misaligned for r in rows])


def counts_of(rows: Sequence[Row]) -> dict[str, int]:
    """How many of each class."""
    bad = sum(r.misaligned for r in rows)
    return {"misaligned": bad, "aligned": len(rows) - bad}
