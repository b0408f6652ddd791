"""Figures of docs/hidden.md: `python -m tests.probes.hidden.measure` prints them, with the built-in model's tokenizer.

Other seeds than the tests have. For a benign kind: the share of messages that are called unreadable, the highest
share of one, and how many have a second reading. For a way to hide: the share that is called unreadable, the share of
requests of whose words nine in ten are in a second reading, and the two together.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from probes.hidden import UNREADABLE, Tokens, look
from tests.probes.hidden import benign, rarities
from tests.probes.hidden.hiding import CIPHERS, HIDING, hidden

SEEDS = (101, 102, 103, 104, 105)
COUNT = 100


def main() -> None:
    """Print both tables."""
    from transformers import AutoTokenizer

    from monitor.settings import default_state_dir
    from probes.model.builtin import SMOLLM2, resolve

    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path, default=default_state_dir())
    tokenizer = AutoTokenizer.from_pretrained(resolve(SMOLLM2, parser.parse_args().state))
    tokens = Tokens(lambda text: len(tokenizer.encode(text, add_special_tokens=False)))
    print(f"letters a token in English: {tokens.english:.2f}; threshold {UNREADABLE}\n")
    print("| benign messages | called unreadable | highest share | second readings |\n|---|---|---|---|")
    total = [0, 0, 0]
    makers = [(kind, benign.benign) for kind in benign.KINDS] + [(kind, rarities.rare) for kind in rarities.KINDS]
    for kind, make in makers:
        found = [look([{"role": "user", "content": t}], tokens=tokens) for s in SEEDS for t in make(kind, COUNT, s)]
        shares = [each.unreadable for each in found]
        calls, second = sum(x >= UNREADABLE for x in shares), sum(bool(each.readings) for each in found)
        total = [total[0] + len(found), total[1] + calls, total[2] + second]
        print(f"| {kind} | {calls} of {len(found)} | {max(shares):.2f} | {second} |")
    print(f"| all | {total[1]} of {total[0]} | | {total[2]} |\n")
    print("| hidden by | called unreadable | read again | either |\n|---|---|---|---|")
    for kind in (*HIDING, *CIPHERS):
        rows = [_hidden(request, text, tokens) for seed in SEEDS for request, text in hidden(kind, seed)]
        called, again = (sum(row[i] for row in rows) / len(rows) for i in (0, 1))
        print(f"| {kind} | {called:.2f} | {again:.2f} | {sum(any(row) for row in rows) / len(rows):.2f} |")


def _hidden(request: str, text: str, tokens: Tokens) -> tuple[bool, bool]:
    found = look([{"role": "user", "content": text}], tokens=tokens)
    words = re.findall(r"[a-z]+", request.lower())
    read = [re.findall(r"[a-z]+", reading.turns[0]["content"].lower()) for reading in found.readings]
    again = any(sum(word in each for word in words) >= 0.9 * len(words) for each in read)
    return found.unreadable >= UNREADABLE, again


if __name__ == "__main__":
    main()
