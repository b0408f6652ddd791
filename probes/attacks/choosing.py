"""Select rows of a fit under the attack families that may choose.

Contract: `under_attack` puts each misaligned row in one wording a family, of the half of its wordings that is for
choices; families that hold out are refused. Rows are read as they are, without second readings: how a text is spelled
or encoded chooses nothing here, since that is undone before a probe reads it (`probes.hidden`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from probes.attacks.base import Family, Target
from probes.attacks.families import materials_of
from probes.attacks.suite import SuitePlan, in_wordings
from probes.capture.batches import encode
from probes.errors import DataError
from probes.model.load import ChatModel
from probes.rows import Row

# What a fit chooses by where nothing is said: one of each kind that is cheap, and benign text of a few hundred tokens.
DEFAULT = (
    "suffix-language,suffix-format,suffix-polite,suffix-question,prefix-greeting,prefix-instruction,padding-polite,"
    "framing-fiction,framing-roleplay,benign-before-200,benign-after-200,split-turns,history,system-turn,forged-generic,case"
)


def under_attack(
    chat: ChatModel,
    rows: Sequence[Row],
    families: Sequence[Family],
    pool: Sequence[str],
    *,
    target: Target = "prompt",
    seed: int = 0,
    max_tokens: int = 2048,
) -> dict[str, list[Row]]:
    """The rows by family. `pool` are benign texts for the families of length. DataError for rows without turns."""
    conversations = []
    for row in rows:
        if row.conversation is None:
            raise DataError("attacks: a row has no conversation to transform; read the data with its turns")
        conversations.append(row.conversation)
    materials = materials_of(chat, pool)
    plan = SuitePlan(families=tuple(families), seed=seed, part="choose")
    found = {}
    for family in families:
        wordings = family.wordings(materials, seed=seed, count=plan.wordings, part="choose")
        texts = in_wordings(family, wordings, conversations, plan, target, first=len(conversations))
        found[family.name] = [
            replace(
                rows[row],
                encoded=encode(chat, made.turns, made.response, max_tokens, tools=made.tools, spans=True),
                conversation=made,
            )
            for row, made in zip(texts.row, texts.conversations, strict=True)
        ]
    return found
