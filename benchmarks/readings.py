"""What a message costs the worker to read, by probe and by kind of message: `python -m benchmarks.readings`.

The batch scorer with the shipped harmful-request probe, version 2 against version 1, in turns in one run: microseconds
a token of the messages (tokenising, readings and the forward pass) on everyday messages, conversations of short turns,
messages that hide their text in base64, and messages over `max_tokens`. `rest` is without the forward pass. Writes
docs/bench-readings.json.
"""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import machine
from monitor.service.bootstrap import load_model
from monitor.service.scoring import BatchScorer
from monitor.settings import load_settings
from monitor.stream.wire import WireMessage
from probes.card import load_probe
from probes.model.load import user_message
from probes.organisms.long_text import long_messages
from probes.organisms.messages import everyday

OUT = Path("docs/bench-readings.json")
PROBES = ("harmful-request", "harmful-request@1")
ROUNDS = 5
BATCH = 64


def kinds() -> dict[str, list[list[dict[str, str]]]]:
    """Conversations by kind."""
    texts = everyday("test")[:128]
    said = {"role": "assistant", "content": "Go on."}
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in texts[:64]]
    split = [[*user_message(first), said, *user_message(second)] for first, second in halves]
    hidden = [user_message(base64.b64encode(text.encode()).decode()) for text in texts[:64]]
    return {
        "everyday": [user_message(text) for text in texts],
        "short turns": split,
        "base64": hidden,
        "4,000 tokens": long_messages("test", 4000, 3),
    }


def seconds(scorer: BatchScorer, messages: Sequence[WireMessage]) -> tuple[float, float]:
    """(all, without the forward pass) of one pass over the messages."""
    forward, started = scorer.seconds, time.perf_counter()
    for start in range(0, len(messages), BATCH):
        scorer(messages[start : start + BATCH])
    whole = time.perf_counter() - started
    return whole, whole - (scorer.seconds - forward)


def main() -> None:
    settings = load_settings()
    chat = load_model(settings, print)
    scorers = {
        name: BatchScorer(chat, [load_probe(name)], token_budget=2048, max_tokens=2048, skip_over_long=False)
        for name in PROBES
    }
    found: dict[str, Any] = {}
    for kind, conversations in kinds().items():
        messages = [WireMessage(f"m{i}", turns) for i, turns in enumerate(conversations)]
        # Of the messages as they are, whatever is read besides.
        tokens = sum(len(chat.prompt_ids(chat.rendered(turns))) for turns in conversations)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in PROBES}
        read = {}
        for _ in range(ROUNDS if kind != "4,000 tokens" else 2):
            for name, scorer in scorers.items():
                before = scorer.tokens
                times[name].append(seconds(scorer, messages))
                read[name] = scorer.tokens - before
        rows = {
            name: {
                "us_a_token": round(1e6 * statistics.median(whole for whole, _ in each) / tokens, 1),
                "rest_us_a_message": round(1e6 * statistics.median(rest for _, rest in each) / len(messages), 1),
                "tokens_read": read[name],
            }
            for name, each in times.items()
        }
        new, old = (rows[name]["us_a_token"] for name in PROBES)
        found[kind] = {"messages": len(messages), "tokens": tokens, "ratio": round(new / old, 3), **rows}
        print(kind, json.dumps(found[kind]), flush=True)
    document = {"command": "python -m benchmarks.readings", "machine": machine(), "kinds": found}
    OUT.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
