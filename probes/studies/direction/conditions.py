"""What a direction study compares: two conditions on the same messages, or labelled messages; and a control.

- `adapter_pair`: an adapter in use against the plain base, toggled on the same weights;
- `checkpoint_pair`: two checkpoints of one architecture;
- `labelled_messages`: misaligned against aligned messages, under one model.

The control carries the same form with other content (the secure-code adapter, careful advice, other labels): a
direction of content must do what the control's does not. `read_comparison` reads both splits under every condition, all
sites in one forward pass a message. Raises DirectionError where activations are not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from probes.capture.aggregation import Aggregation
from probes.capture.batches import Encoded, encode
from probes.capture.sites import Site
from probes.conditions import LAST_PROMPT, Activations, Condition, activations_by_condition
from probes.errors import DataError, DirectionError, ModelError
from probes.model.load import ChatModel, user_message
from probes.rows import Row, split_rows
from probes.studies.mitigation import Prompts

ComparisonKind = Literal["adapter", "checkpoints", "messages"]


@dataclass(frozen=True)
class Comparison:
    """The conditions of a study. The answers of `misaligned` are to be corrected; `reference` has the base weights."""

    kind: ComparisonKind
    misaligned: Condition
    aligned: Condition
    control: Condition | None = None
    rows: tuple[Row, ...] = ()
    control_rows: tuple[Row, ...] = ()
    aggregation: Aggregation = LAST_PROMPT

    @property
    def reference(self) -> ChatModel:
        """The model under whose base weights answers are checked for sense."""
        return self.aligned.chat

    @property
    def has_control(self) -> bool:
        return self.control is not None or bool(self.control_rows)

    def names(self) -> dict[str, str]:
        named = {"misaligned": self.misaligned.name, "aligned": self.aligned.name}
        return named | ({"control": self.control.name} if self.control else {})

    def identities(self) -> dict[str, Any]:
        """What a cached result depends on, condition by condition."""
        identities = {}
        for name in ("misaligned", "aligned", "control"):
            condition: Condition | None = getattr(self, name)
            if condition is not None:
                with condition.applied() as chat:
                    identities[name] = vars(chat.identity) | {"model": chat.name}
        return identities


def adapter_pair(chat: ChatModel, control: str | None = None) -> Comparison:
    """The adapter in use against the plain base; `control` names another loaded adapter."""
    if chat.active is None:
        raise ModelError(f"adapter: none is in use in {chat.name}; load the one to be studied")
    if control is not None and control not in chat.adapters:
        raise ModelError(f"control: {control!r} is not loaded; loaded: {', '.join(chat.adapters)}")
    if control == chat.active:
        raise ModelError(f"control: {control!r} is the adapter under study itself")
    return Comparison(
        "adapter", Condition(chat, chat.active), Condition(chat, None), Condition(chat, control) if control else None
    )


def checkpoint_pair(tuned: ChatModel, base: ChatModel, control: ChatModel | None = None) -> Comparison:
    """Two checkpoints of one architecture; ModelError where their widths or depths differ."""
    for other in (tuned, control):
        if other is None:
            continue
        mine, theirs = other.layout, base.layout
        if (mine.width, mine.n_blocks, mine.n_heads) != (theirs.width, theirs.n_blocks, theirs.n_heads):
            raise ModelError(
                f"checkpoints: {other.name} has {mine.n_blocks} blocks of width {mine.width}, {base.name} "
                f"{theirs.n_blocks} of {theirs.width}; a direction needs one architecture"
            )
    conditions = [Condition(chat, chat.active) for chat in (tuned, base)]
    return Comparison(
        "checkpoints", conditions[0], conditions[1], Condition(control, control.active) if control else None
    )


def labelled_messages(
    chat: ChatModel,
    rows: Sequence[Row],
    control_rows: Sequence[Row] = (),
    aggregation: Aggregation = LAST_PROMPT,
) -> Comparison:
    """Misaligned against aligned messages under the model as it is; rows of one group stay in one split.

    `control_rows` carry labels of another content in the same form; their direction is the content control.
    """
    condition = Condition(chat, chat.active)
    return Comparison("messages", condition, condition, None, tuple(rows), tuple(control_rows), aggregation)


@dataclass(frozen=True)
class ClassActivations:
    """Activations (rows, width) of one split by site. `paired`: row i is the same message in all of them.

    `control` is that of the control condition or rows, `control_aligned` what its direction is measured from.
    """

    misaligned: Activations
    aligned: Activations
    control: Activations | None
    control_aligned: Activations | None
    paired: bool


@dataclass(frozen=True)
class ComparisonActivations:
    """Both splits, and the labelled rows of each where there are some (for the text-only baseline)."""

    fit: ClassActivations
    test: ClassActivations
    fit_rows: Sequence[Row] = ()
    test_rows: Sequence[Row] = ()


def encoded(chat: ChatModel, messages: Sequence[str]) -> list[Encoded]:
    """User messages as prompts."""
    return [encode(chat, user_message(text)) for text in messages]


def read_comparison(
    comparison: Comparison, prompts: Prompts, sites: Sequence[Site], seed: int = 0
) -> ComparisonActivations:
    """Activations of the fit and the test split under every condition."""
    if comparison.kind == "messages":
        return _read_rows(comparison, sites, seed)
    return _read_conditions(comparison, prompts, sites)


def _read_conditions(comparison: Comparison, prompts: Prompts, sites: Sequence[Site]) -> ComparisonActivations:
    messages, n = [*prompts.fit, *prompts.test], len(prompts.fit)

    def activations(condition: Condition) -> tuple[Activations, Activations]:
        rows = [(condition, item) for item in encoded(condition.chat, messages)]
        got = _checked(activations_by_condition(rows, sites, comparison.aggregation), condition.name)
        return {s: v[:n] for s, v in got.items()}, {s: v[n:] for s, v in got.items()}

    bad, good = activations(comparison.misaligned), activations(comparison.aligned)
    control = activations(comparison.control) if comparison.control else (None, None)

    def classes(split: int) -> ClassActivations:
        theirs = control[split]
        return ClassActivations(bad[split], good[split], theirs, good[split] if theirs else None, paired=True)

    return ComparisonActivations(classes(0), classes(1))


def _read_rows(comparison: Comparison, sites: Sequence[Site], seed: int) -> ComparisonActivations:
    splits = split_rows(comparison.rows, seed)
    other = split_rows(comparison.control_rows, seed) if comparison.control_rows else {"fit": [], "test": []}

    def activations(rows: Sequence[Row], misaligned: bool) -> Activations:
        chosen = [(condition_of(comparison.misaligned, r), r.encoded) for r in rows if r.misaligned == misaligned]
        return _checked(activations_by_condition(chosen, sites, comparison.aggregation), comparison.misaligned.name)

    def classes(split: str) -> ClassActivations:
        control = [activations(other[split], label) if other[split] else None for label in (True, False)]
        return ClassActivations(
            activations(splits[split], True), activations(splits[split], False), control[0], control[1], paired=False
        )

    return ComparisonActivations(classes("fit"), classes("test"), splits["fit"], splits["test"])


def condition_of(condition: Condition, row: Row) -> Condition:
    """The condition that a labelled row asks to be read under."""
    return replace(condition, adapter=None) if row.adapter == "base" else condition


def _checked(activations: Activations, condition: str) -> Activations:
    for site, values in activations.items():
        bad = int((~np.isfinite(values).all(1)).sum())
        if bad:
            raise DirectionError(
                f"activations at {site} of {condition}: {bad} of {len(values)} messages are not finite (float16 "
                "overflow?); load the model in float32 or bfloat16"
            )
    return activations


def check_prompts(prompts: Prompts, least: int = 8) -> None:
    """DataError when a list is too short to say anything."""
    for name, messages in (("fit", prompts.fit), ("select", prompts.select), ("test", prompts.test)):
        if len(messages) < least:
            raise DataError(f"prompts: {name} has {len(messages)} messages; at least {least} are needed")
