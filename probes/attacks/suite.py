"""Runs the attack families over harmful and benign messages and says what a probe still flags.

Contract: `run_suite` scores each message as it is and under every family, by the same path as the worker
(`probes.reading`), and gives an `AttackReport`. `run_suites` does so for several probes on the same texts, in one pass.
The same rows, seed and families give the same texts. The pool of benign texts, for the families of length, must be
disjoint from the benign rows: that is checked. Nothing of a message is in the report but counts.

Cost: rows times wordings times families forward passes; the families of 2,000 tokens take most of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from probes.attacks.base import Family, Materials, Part, Target, Wording, attacked, request_turn, rng_of, text_of
from probes.attacks.families import FAMILIES, materials_of
from probes.attacks.report import AttackReport, FamilyFigures, WordingFigure, row_rate, worst_first
from probes.card import Probe
from probes.errors import DataError
from probes.evaluation import Interval, auroc, rate
from probes.hidden import UNREADABLE, Tokens, look
from probes.model.load import ChatModel
from probes.progress import Progress, silent
from probes.reading import Conversation, score_conversations
from probes.reading.readings import tokens_of

# Fewer rows than that have intervals that say nothing.
FEWEST_ROWS = 5


@dataclass(frozen=True)
class SuitePlan:
    """What is run: `wordings` are drawn of each family, and each row is put in `wordings_per_row` of them."""

    families: tuple[Family, ...] = tuple(FAMILIES.values())
    seed: int = 0
    wordings: int = 12
    wordings_per_row: int = 1
    max_rows: int | None = None
    max_tokens: int = 2048
    max_windows: int = 8
    part: Part = "report"


@dataclass(frozen=True)
class _Texts:
    """Rows of both classes in their wordings: conversations, and for each the row and the wording that it has."""

    conversations: tuple[Conversation, ...]
    row: NDArray[np.int64]
    wording: NDArray[np.int64]


@dataclass(frozen=True)
class _Scored:
    """Texts with their classes, their scores (texts, probes), and whether each is called unreadable."""

    texts: _Texts
    harmful: NDArray[np.bool_]
    scores: NDArray[np.float64]
    unreadable: NDArray[np.bool_]


def run_suite(
    chat: ChatModel,
    probe: Probe,
    harmful: Sequence[Conversation],
    benign: Sequence[Conversation],
    *,
    pool: Sequence[str] = (),
    plan: SuitePlan | None = None,
    progress: Progress = silent,
) -> AttackReport:
    """The suite on one probe."""
    return run_suites(chat, [probe], harmful, benign, pool=pool, plan=plan, progress=progress)[0]


def run_suites(
    chat: ChatModel,
    probes: Sequence[Probe],
    harmful: Sequence[Conversation],
    benign: Sequence[Conversation],
    *,
    pool: Sequence[str] = (),
    plan: SuitePlan | None = None,
    progress: Progress = silent,
) -> list[AttackReport]:
    """The suite on several probes that read the same side of a message. Raises DataError for rows that do not do."""
    plan = plan or SuitePlan()
    target = target_of(probes)
    harmful, benign = _drawn(harmful, plan, "harmful"), _drawn(benign, plan, "benign")
    _check(harmful, benign, pool, plan, target)
    materials = materials_of(chat, pool)
    rows = [*harmful, *benign]
    wrong = np.arange(len(rows)) < len(harmful)
    tokens = tokens_of(chat)

    def scored(texts: _Texts) -> _Scored:
        values = score_conversations(
            chat, probes, texts.conversations, max_tokens=plan.max_tokens, max_windows=plan.max_windows
        )
        return _Scored(texts, wrong[texts.row], values, _unreadable(texts, target, tokens))

    progress(f"scoring {len(rows)} messages as they are")
    as_they_are = _Texts(tuple(rows), np.arange(len(rows)), np.zeros(len(rows), dtype=np.int64))
    plain = _figures_of(_PLAIN, (), scored(as_they_are), probes, "nothing")
    found: list[list[FamilyFigures]] = [[] for _ in probes]
    for number, family in enumerate(plan.families, 1):
        progress(f"family {number} of {len(plan.families)}: {family.name}")
        wordings = family.wordings(materials, seed=plan.seed, count=plan.wordings, part=plan.part)
        texts = in_wordings(family, wordings, rows, plan, target, first=len(harmful))
        figures = _figures_of(family, wordings, scored(texts), probes, family.changed(target))
        for own, figure in zip(found, figures, strict=True):
            own.append(figure)
    return [
        AttackReport(
            probe=probe.name,
            version=probe.card.version,
            digest=probe.digest,
            model=chat.name,
            made=datetime.now(UTC).date().isoformat(),
            seed=plan.seed,
            threshold=probe.card.threshold,
            max_tokens=plan.max_tokens,
            max_windows=plan.max_windows,
            wordings_per_row=plan.wordings_per_row,
            harmful=len(harmful),
            benign=len(benign),
            pool=len(pool),
            part=plan.part,
            plain_figures=plain[i],
            families=worst_first(found[i]),
        )
        for i, probe in enumerate(probes)
    ]


def target_of(probes: Sequence[Probe]) -> Target:
    """Which side of a message the probes read; DataError where they differ."""
    sides: set[Target] = {"response" if p.aggregation.span == "response" else "prompt" for p in probes}
    if len(sides) != 1:
        raise DataError("probes: some read the response and some the prompt; run them one at a time")
    return sides.pop()


def in_wordings(
    family: Family,
    wordings: Sequence[Wording],
    rows: Sequence[Conversation],
    plan: SuitePlan,
    target: Target,
    *,
    first: int = 0,
) -> _Texts:
    """Every row in its wordings; which those are is drawn by the seed, and each is used about equally often.

    `first` rows are of one class and the others of another: the wordings are dealt to each class by itself.
    """
    per_row = min(plan.wordings_per_row, len(wordings))
    rng = rng_of(plan.seed, family.name, "rows")
    order = rng.sample(range(first), first) + rng.sample(range(first, len(rows)), len(rows) - first)
    conversations, row_of, wording_of = [], [], []
    for place, row in enumerate(order):
        given = rows[row]
        for i in range(per_row):
            n = (place * per_row + i) % len(wordings)
            made = attacked(family, wordings[n], given.turns, given.response, seed=plan.seed, row=row, target=target)
            conversations.append(Conversation(made.turns, made.response, given.tools))
            row_of.append(row)
            wording_of.append(n)
    return _Texts(tuple(conversations), np.array(row_of), np.array(wording_of))


def _unreadable(texts: _Texts, target: Target, tokens: Tokens) -> NDArray[np.bool_]:
    """Which texts are called unreadable, of the side that the probes read."""
    found = (
        look(each.turns, response=each.response if target == "response" else None, tokens=tokens)
        for each in texts.conversations
    )
    return np.array([each.unreadable >= UNREADABLE for each in found])


def _figures_of(
    family: Family, wordings: Sequence[Wording], scored: _Scored, probes: Sequence[Probe], changes: str
) -> list[FamilyFigures]:
    """A family's figures for each probe."""
    texts, harmful = scored.texts, scored.harmful
    made = []
    for p, probe in enumerate(probes):
        values = scored.scores[:, p]
        there = np.isfinite(values)
        flagged = there & (values > probe.card.threshold)
        labels = harmful[there]
        both = bool(labels.any() and not labels.all())
        made.append(
            FamilyFigures(
                family=family.name,
                about=family.about,
                holds_out=family.holds_out,
                changes=changes,
                tpr=_by_row(flagged, texts.row, harmful),
                fpr=_by_row(flagged, texts.row, ~harmful),
                auroc=auroc(values[there], labels, texts.row[there].tolist()) if both else None,
                messages=len(values),
                not_scored=int((~there).sum()),
                wordings=len(set(texts.wording.tolist())) if wordings else 0,
                lowest_tpr=_extreme(wordings, texts.wording, flagged, harmful, lowest=True),
                highest_fpr=_extreme(wordings, texts.wording, flagged, ~harmful, lowest=False),
                unreadable=_by_row(scored.unreadable, texts.row, harmful),
                unreadable_benign=_by_row(scored.unreadable, texts.row, ~harmful),
            )
        )
    return made


def _by_row(flagged: NDArray[np.bool_], row: NDArray[np.int64], chosen: NDArray[np.bool_]) -> Interval:
    return row_rate([flagged[chosen & (row == number)].tolist() for number in np.unique(row[chosen])])


def _extreme(
    wordings: Sequence[Wording],
    wording: NDArray[np.int64],
    flagged: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    *,
    lowest: bool,
) -> WordingFigure | None:
    """The wording with the lowest rate, or the highest; of equal ones that with more rows."""
    found = []
    for n, each in enumerate(wordings):
        rows = flagged[chosen & (wording == n)]
        if len(rows):
            found.append(WordingFigure(each.label, rate(int(rows.sum()), len(rows))))
    sign = 1 if lowest else -1
    return min(found, key=lambda f: (sign * f.rate.value, -f.rate.n, f.wording), default=None)


def _unchanged(_materials: Materials) -> tuple[Wording, ...]:
    return ()


_PLAIN = Family("plain", "the messages as they are", _unchanged)


def _drawn(rows: Sequence[Conversation], plan: SuitePlan, name: str) -> Sequence[Conversation]:
    if plan.max_rows is None or len(rows) <= plan.max_rows:
        return rows
    chosen = rng_of(plan.seed, name, "drawn").sample(range(len(rows)), plan.max_rows)
    return [rows[i] for i in sorted(chosen)]


def _check(
    harmful: Sequence[Conversation],
    benign: Sequence[Conversation],
    pool: Sequence[str],
    plan: SuitePlan,
    target: Target,
) -> None:
    for name, rows in (("harmful", harmful), ("benign", benign)):
        if len(rows) < FEWEST_ROWS:
            raise DataError(
                f"{name}: {len(rows)} messages; an interval needs at least {FEWEST_ROWS}, and one of +-0.1 needs 100"
            )
        for number, row in enumerate(rows, 1):
            if not row.turns:
                raise DataError(f"{name}: message {number} has no turns; give at least one user turn")
            if target == "response" and not row.response:
                raise DataError(f"{name}: message {number} has no response, and the probe reads responses; add it")
    if plan.wordings < 1 or plan.wordings_per_row < 1:
        raise DataError("wordings: at least 1 of each family is needed")
    own = {text_of(row.turns[request_turn(row.turns)]).strip() for row in benign}
    if own & {text.strip() for text in pool}:
        raise DataError("pool: some benign texts are among the benign messages that are scored; keep them apart")
