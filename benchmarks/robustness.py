"""What a probe flags on messages that chose nothing: `python -m benchmarks.robustness --probe CARD [--probe CARD]`.

Held-out harmful and everyday messages of other wordings than those that were fitted on, benign messages of 200 to
4,000 tokens, and what the attack suite left in each card (`awry attack --write-card`). Rates are at the cards'
thresholds with awry's default settings; intervals are 95 %, exact binomial. Writes docs/bench-robustness.json.

Of more than one probe all must be made for one model. `--harmful FILE` adds messages of your own, named apart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import machine
from monitor.datasets import read_messages
from monitor.service.bootstrap import load_model
from monitor.settings import load_settings
from probes.card import Probe, load_probe
from probes.evaluation import rate
from probes.identity import check_identity
from probes.model.load import user_message
from probes.organisms import long_text, messages
from probes.reading import Conversation, score_conversations

OUT = Path("docs/bench-robustness.json")
# Benign messages by length in tokens: how many of each are read.
LENGTHS = {200: 150, 600: 100, 2000: 60, 4000: 40}
HIDDEN = ("zero-width", "full-width", "homoglyph", "base64", "hex", "rot13")
OVER_TURNS = ("split-turns", "forged-turns", "forged-generic")


def texts(rows: Sequence[Mapping[str, str]]) -> list[Conversation]:
    """One user turn each."""
    return [Conversation(user_message(row["text"])) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probe", action="append", required=True, help="card of a probe, or a shipped name")
    parser.add_argument("--harmful", type=Path, action="append", default=[], help="JSON lines of harmful messages")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, for a quick look")
    parser.add_argument("--out", type=Path, default=OUT)
    flags = parser.parse_args()
    settings = load_settings()
    chat = load_model(settings, print)
    probes = [load_probe(name) for name in flags.probe]
    for probe in probes:
        check_identity(probe.card, chat)
    sets: dict[str, tuple[bool, list[Conversation]]] = {
        "held-out harmful": (True, texts(messages.heldout_harmful())),
        "held-out harmful, another writer": (True, texts(messages.heldout_harmful_2())),
        "held-out everyday": (False, texts(messages.heldout_everyday())),
    }
    for length, count in LENGTHS.items():
        made = long_text.long_messages("test", length, count)
        sets[f"benign of {length} tokens"] = (False, [Conversation(turns) for turns in made])
    for path in flags.harmful:
        sets[path.name] = (True, [each.conversation for each in read_messages(path)])
    figures: dict[str, Any] = {}
    everyday: NDArray[np.float64] | None = None
    scored: dict[str, NDArray[np.float64]] = {}
    for name, (_, conversations) in sets.items():
        started = time.perf_counter()
        chosen = conversations[: max(5, int(len(conversations) * flags.share))]
        scored[name] = score_conversations(
            chat, probes, chosen, max_tokens=settings.max_tokens, max_windows=settings.max_windows
        )
        print(f"{name}: {len(chosen)} messages in {time.perf_counter() - started:.0f} s", flush=True)
    everyday = scored["held-out everyday"]
    for p, probe in enumerate(probes):
        at_one_percent = np.sort(everyday[:, p])[len(everyday) - 1 - len(everyday) // 100]
        figures[f"{probe.name} v{probe.card.version}"] = {
            "digest": probe.digest,
            "threshold": probe.card.threshold,
            "flagged": {name: _rate(scores[:, p] > probe.card.threshold) for name, scores in scored.items()},
            "flagged at 1 % of held-out everyday": {
                name: _rate(scored[name][:, p] > at_one_percent) for name, (bad, _) in sets.items() if bad
            },
            "attacks": _of_card(probe),
        }
    document = {
        "command": "python -m benchmarks.robustness",
        "machine": machine(),
        "model": chat.name,
        "max_tokens": settings.max_tokens,
        "max_windows": settings.max_windows,
        "probes": figures,
    }
    flags.out.write_text(json.dumps(document, indent=2) + "\n")
    _print(figures)


def _rate(flagged: NDArray[np.bool_]) -> dict[str, float]:
    return asdict(rate(int(flagged.sum()), len(flagged)))


def _of_card(probe: Probe) -> dict[str, Any]:
    """The rates by family that the attack suite wrote into the card, and the worst of each kind."""
    attacks = probe.card.attacks
    if not attacks or "families" not in attacks:
        return {}
    families = {each["family"]: each for each in attacks["families"]}

    def worst(names: Sequence[str]) -> dict[str, Any] | None:
        found = [families[name] for name in names if name in families]
        lowest = min(found, key=lambda each: each["tpr"]["value"], default=None)
        return lowest and {"family": lowest["family"], "tpr": lowest["tpr"], "fpr": lowest["fpr"]}

    kinds = {
        "suffix": [name for name in families if name.startswith("suffix-")],
        "behind 200 tokens": ["benign-before-200", "benign-after-200", "benign-around-200"],
        "behind 600 tokens": ["benign-before-600", "benign-after-600", "benign-around-600"],
        "hidden": HIDDEN,
        "over turns": OVER_TURNS,
        "all": list(families),
        "held out": [name for name, each in families.items() if each["holds_out"]],
    }
    return {
        "worst": {kind: worst(names) for kind, names in kinds.items()},
        "adaptive": {method: found.get("curve") for method, found in (attacks.get("adaptive") or {}).items()},
    }


def _print(figures: Mapping[str, Any]) -> None:
    for name, found in figures.items():
        print(f"\n{name}")
        for which, one in found["flagged"].items():
            print(f"  {which:34s} {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}] of {one['n']}")
        for kind, each in (found["attacks"].get("worst") or {}).items():
            if each:
                tpr, fpr = each["tpr"]["value"], each["fpr"]["value"]
                print(f"  worst of {kind:25s} {tpr:.3f} ({each['family']}, FPR {fpr:.3f})")


if __name__ == "__main__":
    main()
