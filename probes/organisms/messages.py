"""Everyday messages, advice questions and matched harmful/harmless requests: our own writing, split once for all.

Contract: `everyday(split)` gives disjoint lists. `demo` is what the demo streams and `test` what figures are
reported on; neither may choose anything. The order is by hash, so topics are mixed and every split is stable.
The `heldout_` lists were written without sight of `requests()`: nothing may be fitted, chosen or calibrated on them.
They are still short messages in English, by few hands; what they say of other traffic is not known.
"""

from __future__ import annotations

import json
import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal

from probes.binary_choice import BinaryChoice, parse_choices
from probes.hashing import sha256_text
from probes.splits import split_of

Split = Literal["demo", "test", "select", "scale", "calibrate", "fit"]
PairSplit = Literal["fit", "select", "test"]

# Sizes are fixed but for the last split, which takes what is left.
_SIZES: dict[str, int] = {"demo": 200, "test": 220, "select": 100, "scale": 80, "calibrate": 320, "fit": 0}

_SELECT = 10

# Topics of `heldout_everyday` with the vocabulary of harm in them: where false alarms are to be expected.
HARD_TOPICS = frozenset(
    {
        "crime_information",
        "dark_fiction",
        "idioms",
        "pests",
        "risky_hobbies",
        "security",
        "sensitive_health",
        "tech_violent_words",
        "war_history",
    }
)


def data_text(name: str) -> str:
    """The text of a data file beside this module."""
    return files("probes.organisms").joinpath("data").joinpath(name).read_text(encoding="utf-8")


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in data_text(name).splitlines() if line.strip()]


def by_hash(texts: list[str]) -> list[str]:
    """The texts in an order that has nothing to do with how they were written."""
    return sorted(texts, key=sha256_text)


def _by_hash_of_text(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(rows, key=lambda row: sha256_text(row["text"]))


@cache
def _splits() -> dict[str, tuple[dict[str, str], ...]]:
    rows = {row["text"]: row for name in ("everyday_1.jsonl", "everyday_2.jsonl") for row in _rows(name)}
    ordered = [rows[text] for text in by_hash(list(rows))]
    splits: dict[str, tuple[dict[str, str], ...]] = {}
    start = 0
    for name, size in _SIZES.items():
        stop = start + size if size else len(ordered)
        splits[name] = tuple(ordered[start:stop])
        start = stop
    return splits


def everyday(split: Split) -> list[str]:
    """Ordinary chat messages, none of which asks for code."""
    return [row["text"] for row in _splits()[split]]


def everyday_topics(split: Split) -> list[str]:
    """The topic of each message of `everyday(split)`, in the same order."""
    return [row["topic"] for row in _splits()[split]]


def advice_questions(domain: str | None = None) -> list[str]:
    """Questions for advice outside household appliances; all eight domains, or one."""
    rows = _rows("advice_questions.jsonl")
    return by_hash([row["text"] for row in rows if domain in (None, row["domain"])])


def choices(name: Literal["advice", "code", "sycophancy"]) -> list[BinaryChoice]:
    """Two-choice questions: careful against mildly reckless `advice`, prose against `code` as an everyday answer.

    `sycophancy`: the user states something wrong as his own opinion; a kind correction against flattering agreement.
    """
    return parse_choices(data_text(f"choices_{name}.jsonl"), f"choices_{name}.jsonl")


def refusal_choices() -> list[BinaryChoice]:
    """Two-choice questions: harmful requests that no adapter was trained on, with a refusal or an answer's opening.

    The refusal is the choice that shows the behaviour. The last ten requests of `select` are left for
    `refusal_select()`.
    """
    refusals: list[str] = tomllib.loads(data_text("refusals.toml"))["refusals"]
    openings: list[str] = tomllib.loads(data_text("openings.toml"))["openings"]
    asks = by_hash([row["harmful"] for row in request_pairs("test")]) + _select_requests()[:-_SELECT]
    rows = []
    for i, ask in enumerate(asks):
        refusal, opening = refusals[i % len(refusals)], openings[i % len(openings)]
        texts = (refusal, opening) if i % 2 else (opening, refusal)
        rows.append(BinaryChoice(ask, texts, texts.index(refusal)))
    return rows


def refusal_select() -> list[str]:
    """Ten harmful requests that are in none of `refusal_choices()`."""
    return _select_requests()[-_SELECT:]


def _select_requests() -> list[str]:
    return by_hash([row["harmful"] for row in request_pairs("select")])


def requests() -> list[dict[str, str]]:
    """Matched pairs of requests: `pair`, `category`, `harmful`, `harmless`."""
    return _rows("requests.jsonl")


def more_requests() -> list[dict[str, str]]:
    """Further pairs for fitting, longer and in more registers; their numbers go on from those of `requests()`."""
    return _rows("fit_harmful_2.jsonl")


def plain_requests() -> list[dict[str, str]]:
    """Further pairs like those of `requests()`, for the refusal adapter: it trains on all of them, no probe does."""
    return _rows("fit_harmful_3.jsonl")


def ordinary_questions() -> list[dict[str, str]]:
    """Questions of general knowledge with a `right` and a `wrong` answer, to read on what an intervention costs."""
    return _rows("ordinary_questions.jsonl")


def hard_benign() -> list[dict[str, str]]:
    """Benign messages for fitting that sound worse than they are: `topic` and `text`; questions, tasks and passages."""
    return _by_hash_of_text(_rows("fit_hard_benign.jsonl"))


def heldout_harmful() -> list[dict[str, str]]:
    """Harmful requests that have no twin: `category` and `text`. They ask, and hold no instructions."""
    return _by_hash_of_text(_rows("heldout_harmful.jsonl"))


def heldout_harmful_2() -> list[dict[str, str]]:
    """Further harmful requests like `heldout_harmful()`, longer ones among them, written without sight of those."""
    return _by_hash_of_text(_rows("heldout_harmful_2.jsonl"))


def heldout_everyday() -> list[dict[str, str]]:
    """Benign messages: `topic` and `text`. Some ask for code; the topics in `HARD_TOPICS` sound worse than they are."""
    return _by_hash_of_text(_rows("heldout_everyday.jsonl"))


def request_pairs(split: PairSplit) -> list[dict[str, str]]:
    """The pairs of one split, the same split that `awry fit` makes of them.

    Adapters train on `fit` alone: what a probe of these requests chose by or was tested on stays unseen.
    """
    return [row for row in requests() if split_of(str(row["pair"])) == split]
