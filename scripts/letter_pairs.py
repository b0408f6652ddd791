"""Costs of letter pairs: `python -m scripts.letter_pairs` prints both tables of `probes/hidden/letters.py`.

The first is English, counted in this repository's own prose: its documents, and the everyday messages and requests that
it ships. The second is any language in Latin letters: English and the sentences of letter_pairs_languages.toml, each
language with the same weight, letters without their accents. A cost is -8 ln P(second | first), written as one
printable character; the 27th row and column are whatever is no letter.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probes.hidden.invisible import without_accents
from probes.hidden.letters import COST_STEP, FIRST_CHARACTER, classes

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md")
MESSAGES = ("everyday_1.jsonl", "everyday_2.jsonl", "requests.jsonl", "advice_questions.jsonl")
LANGUAGES = ROOT / "scripts" / "letter_pairs_languages.toml"
# Of the second table; the rest is English.
_OTHERS = 0.7
# What a pair that was never seen counts: in English, and as a share of all pairs of a language.
_UNSEEN = 0.5
_UNSEEN_SHARE = 3e-5

Table = NDArray[np.float64]


def prose() -> str:
    """The repository's English, without code blocks, code marks and links."""
    parts = []
    for pattern in DOCUMENTS:
        for path in sorted(ROOT.glob(pattern)):
            text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|^\|[^\n]*", " ", path.read_text("utf-8"), flags=re.S | re.M)
            parts.append(text)
    for name in MESSAGES:
        for line in (ROOT / "probes" / "organisms" / "data" / name).read_text("utf-8").splitlines():
            # The messages are nearer to what is read than the documents are, and fewer.
            parts += _strings(json.loads(line)) * 4
    return " ".join(parts)


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value] if " " in value else []
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in values for text in _strings(each)]


def _counts(text: str, unseen: float) -> Table:
    found = classes(without_accents(text))
    counts = np.full((27, 27), unseen)
    np.add.at(counts, (found[:-1], found[1:]), 1.0)
    # Runs of white space and signs say nothing about letters.
    counts[26, 26] = unseen
    return counts


def english() -> Table:
    """P(second | first) in English."""
    counts = _counts(prose(), _UNSEEN)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def any_language() -> Table:
    """P(second | first) in a language in Latin letters that is not known."""
    texts = tomllib.loads(LANGUAGES.read_text("utf-8")).values()
    shares = [(counts := _counts(text, 0.0)) / counts.sum() for text in texts]
    joint = sum(shares) / len(shares) + _UNSEEN_SHARE
    others = joint / joint.sum(axis=1, keepdims=True)
    return np.asarray(_OTHERS * others + (1 - _OTHERS) * english())


def rows(chances: Table) -> list[str]:
    """A table as `letters.py` holds it."""
    return [
        "".join(chr(FIRST_CHARACTER + min(90, round(each))) for each in row) for row in -np.log(chances) * COST_STEP
    ]


def main() -> None:
    """Print both tables."""
    for name, chances in (("_ENGLISH", english()), ("_ANY", any_language())):
        print(f"{name} = (")  # noqa: T201
        for row in rows(chances):
            print(f"    {json.dumps(row)},")  # noqa: T201
        print(")")  # noqa: T201


if __name__ == "__main__":
    main()
