"""Costs of letter pairs in English: `python -m scripts.letter_pairs` prints the rows of `probes/hidden/letters.py`.

Counted in this repository's own prose: its documents, and the everyday messages and requests that it ships. A cost is
-8 ln P(second | first), written as one printable character; the 27th row and column are whatever is no letter.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from probes.hidden.letters import COST_STEP, FIRST_CHARACTER, classes

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md")
MESSAGES = ("everyday_1.jsonl", "everyday_2.jsonl", "requests.jsonl", "advice_questions.jsonl")


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


def rows() -> list[str]:
    """The table as `letters.py` holds it."""
    found = classes(prose())
    counts = np.full((27, 27), 0.5)
    np.add.at(counts, (found[:-1], found[1:]), 1.0)
    # Runs of white space and signs say nothing about letters.
    counts[26, 26] = 0.5
    cost = -np.log(counts / counts.sum(axis=1, keepdims=True)) * COST_STEP
    return ["".join(chr(FIRST_CHARACTER + min(90, round(each))) for each in row) for row in cost]


def main() -> None:
    for row in rows():
        print(f"    {json.dumps(row)},")


if __name__ == "__main__":
    main()
