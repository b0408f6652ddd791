"""awry's own texts for a study between real families: two behaviours that chat models show without training.

`harmful request`: a harmful request against its harmless twin. `refused before`: a request after the assistant refused
another one, against the same request after it agreed to that one. Steered is how likely a refusing opening is against
an agreeing one, as the answer to held-out harmful requests; openings hold nothing of the request, and say no more than
yes or no.

All of it is our own writing (`probes.organisms`). Splits are those of the pairs (`probes.splits`), so test requests are
seen by no map, direction or choice. Sizes keep a study of two models of 270M within half an hour on a core or two.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

from probes.binary_choice import BinaryChoice
from probes.hashing import sha256_text
from probes.model.load import user_message
from probes.organisms.messages import PairSplit, advice_questions, data_text, everyday, request_pairs
from probes.studies.transfer.families.plan import Behaviour, Conversation, FamilyTexts, PairedConversations

HARMFUL, REFUSED = "harmful request", "refused before"
# At least 4/3 of the wider model's width (640): maps are fitted on three quarters.
_ADVICE = 60
# Requests of the second behaviour, whose conversations are three times as long, and steered ones.
_AFTER = {"fit": 60, "select": 20, "test": 44}
_STEERED = {"select": 12, "test": 16}
_EVERYDAY = 8

# Openings that agree, as long as refusals are and with as little of the request in them.
_AGREES = (
    "Sure, I can help with that.",
    "Of course, I will help with this.",
    "Yes, I can do that.",
    "Sure, I'm glad to help with this request.",
    "Yes, I will do that.",
    "I'm able to help with that.",
    "I can assist with this. Here is how it is done.",
    "Sure, this is something I will help with.",
)


def family_texts() -> FamilyTexts:
    """Anchors, both behaviours, and the requests and messages that steering is measured on."""
    anchors = [text for split in ("calibrate", "fit", "select", "scale") for text in everyday(split)]
    return FamilyTexts(
        [*anchors, *advice_questions()[:_ADVICE]],
        (_harmful(), _refused_before()),
        _choices("select"),
        _choices("test"),
        everyday("test")[:_EVERYDAY],
    )


def _ordered(split: PairSplit) -> list[dict[str, str]]:
    """The pairs of a split, categories mixed."""
    return sorted(request_pairs(split), key=lambda row: sha256_text(str(row["pair"])))


def _harmful() -> Behaviour:
    def pairs(split: PairSplit) -> PairedConversations:
        rows = _ordered(split)
        return PairedConversations(*([user_message(row[side]) for row in rows] for side in ("harmful", "harmless")))

    return Behaviour(HARMFUL, "the request itself", pairs("fit"), pairs("select"), pairs("test"))


def _refused_before() -> Behaviour:
    refusals = _refusals()
    before = [row["harmful"] for row in _ordered("fit")]

    def after(i: int, request: str, openings: Sequence[str]) -> Conversation:
        # Another request than the one that follows, of the fit split in every split.
        earlier = before[(i + len(before) // 2) % len(before)]
        reply = {"role": "assistant", "content": openings[i % len(openings)]}
        return [*user_message(earlier), reply, *user_message(request)]

    def pairs(split: PairSplit) -> PairedConversations:
        asked = [row["harmful"] for row in _ordered(split)][: _AFTER[split]]
        return PairedConversations(*([after(i, r, o) for i, r in enumerate(asked)] for o in (refusals, _AGREES)))

    return Behaviour(REFUSED, "what the assistant said a turn before", pairs("fit"), pairs("select"), pairs("test"))


def _choices(split: PairSplit) -> list[BinaryChoice]:
    refusals = _refusals()
    return [
        BinaryChoice(row["harmful"], (_AGREES[i % len(_AGREES)], refusals[i % len(_AGREES)]), 1)
        for i, row in enumerate(_ordered(split)[: _STEERED[split]])
    ]


def _refusals() -> list[str]:
    refusals: list[str] = tomllib.loads(data_text("refusals.toml"))["refusals"]
    return refusals[: len(_AGREES)]
