"""How fast awry reads a model, beside the bare model and beside research code; one command, one run.

How to run: `make bench`, or `python -m benchmarks.read_path [--out docs/bench.json] [--rounds 3]`, on a machine that
does nothing else. `--quick` is a smoke test. nnsight and TransformerLens come from the
optional extra `bench`; without it their rows say so.

Contract: SmolLM2-135M-Instruct, fp32 on the CPU, torch's default threads, the traffic of `benchmarks.messages`. Rows:

- `bare`: the decoder on awry's own batches (`probes.capture.batches`), no language-model head, no reading: the measure
- `bare-8`: the same in padded batches of 8 in arrival order: how much of the gap to research code is batching alone
- a: awry with one probe at `final`; b: awry with probes at `final` and at all heads, which is what c, d and e read
- c, d, e: transformers with hooks, nnsight, TransformerLens, in padded batches of 8 in arrival order
- plain, f: generation without and with steering

All rows get their batches ready made; the reading itself is inside the timing. Every path that reads is first run
once, untimed, over all messages (that warms it up) and compared with single unpadded forwards; more than 1e-4 of the
site's scale is a MISMATCH, and the exit status is 1. Units: tokens/s, real tokens; ratios are to `bare`, and in f to
plain generation; how they are taken over rounds: `benchmarks.timing`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as Folder
from statistics import median
from typing import Any

from benchmarks import awry_path, others
from benchmarks.messages import arrivals, padded_batches, short_prompts
from benchmarks.paths import (
    TOLERANCE,
    Path,
    Reading,
    largest_difference,
    random_probes,
    read_all,
    reference,
    scores_of,
)
from benchmarks.report import Row, markdown, report
from benchmarks.timing import one_round, ratio
from probes.capture.batches import Batch, Encoded, batches
from probes.model import builtin
from probes.model.load import ChatModel, load_chat_model

_AIMS = {"a": 0.97, "b": 0.95, "f": 0.97}
_AIM_RESEARCH = 3.0
_ARRIVAL_BATCH = 8


@dataclass(frozen=True)
class Size:
    """How much is run."""

    messages: int = 60
    prompts: int = 50
    new_tokens: int = 40


_QUICK = Size(6, 4, 4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write the JSON; 1 when a reading does not agree with the reference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.read_path", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Folder, help="write the figures there as JSON")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is timed (default 3)")
    parser.add_argument("--quick", action="store_true", help="a handful of messages and 1 round: does it run?")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    size, rounds = (_QUICK, 1) if options.quick else (Size(), options.rounds)
    rows, traffic = _run(size, rounds, judged=not options.quick)
    command = " ".join(["python -m benchmarks.read_path", *given])
    found = report(rows, traffic=traffic, command=command, rounds=rounds, quick=options.quick)
    print(markdown(found))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    return int(any(row.agrees is False for row in rows))


def _run(size: Size, rounds: int, *, judged: bool) -> tuple[list[Row], dict[str, Any]]:
    from monitor.settings import default_state_dir

    state = default_state_dir()
    chat = load_chat_model(builtin.SMOLLM2, state, dtype="float32", device="cpu", progress=_say)
    folder = Folder(builtin.resolve(builtin.SMOLLM2, state))
    items = arrivals(chat, size.messages)
    ours = list(batches(items, chat.device))
    theirs = padded_batches(items, chat.device, _ARRIVAL_BATCH)
    probes = random_probes(chat)

    _say("reference: every message alone")
    activations = reference(chat, items)
    scores = scores_of(activations, probes)

    own = [
        awry_path.bare(chat, "bare", "bare decoder, awry's batches"),
        awry_path.awry_final(chat, probes),
        awry_path.awry_heads(chat, probes),
    ]
    bare_arrival = awry_path.bare(chat, "bare-8", f"bare decoder, arrival order, batches of {_ARRIVAL_BATCH}")
    research, missing = _research(chat, folder)
    research = [bare_arrival, *research]
    differences: dict[str, float] = {}
    for paths, shared in ((own, ours), (research, theirs)):
        for path in paths:
            _say(f"warming up and comparing: {path.name}")
            _compare(path, shared, scores if path.scores else activations, differences)

    generation = awry_path.Generation(chat, short_prompts(chat, size.prompts), size.new_tokens)
    speeds: dict[str, list[float]] = {}
    for turn in range(rounds):
        _say(f"round {turn + 1} of {rounds}")
        found = one_round(own, ours, turn) | one_round(research, theirs, turn) | _generate(generation, turn)
        for key, value in found.items():
            speeds.setdefault(key, []).append(value)

    rows = [_row(path, speeds, differences, judged) for path in (*own, *research)]
    rows = sorted([*rows, *missing], key=lambda row: ["bare", "a", "b", "bare-8", "c", "d", "e"].index(row.key))
    rows += _generation_rows(generation, speeds, judged)
    return rows, _traffic(items, ours, theirs, size)


def _research(chat: ChatModel, folder: Folder) -> tuple[list[Path], list[Row]]:
    made: list[tuple[str, str, Callable[[], Path]]] = [
        ("c", "transformers", lambda: others.transformers_path(chat)),
        ("d", "nnsight", lambda: others.nnsight_path(chat, folder)),
        ("e", "TransformerLens", lambda: others.lens_path(chat, folder)),
    ]
    paths, missing = [], []
    for key, name, make in made:
        try:
            paths.append(make())
        except others.Unavailable as reason:
            missing.append(Row(key, name, aim=f"awry >= {_AIM_RESEARCH:g}x", note=str(reason)))
    return paths, missing


def _compare(path: Path, shared: Sequence[Batch], expected: Reading, differences: dict[str, float]) -> None:
    reading = read_all(path, shared)
    if reading.final is not None or reading.heads is not None:
        differences[path.key] = largest_difference(reading, expected)


def _generate(generation: awry_path.Generation, turn: int) -> dict[str, float]:
    if turn == 0:
        generation.plain()  # warms up
    if turn % 2:
        steered = generation.steered()
        return {"plain": generation.plain(), "f": steered}
    return {"plain": generation.plain(), "f": generation.steered()}


def _row(path: Path, speeds: dict[str, list[float]], differences: dict[str, float], judged: bool) -> Row:
    key = path.key
    to_bare = ratio(speeds[key], speeds["bare"])
    over = ratio(speeds["b"], speeds[key]) if key in ("c", "d", "e") else None
    aim, met = "", None
    if key in _AIMS:
        aim, met = f">= {_AIMS[key]}", to_bare.median >= _AIMS[key]
    elif over is not None:
        aim, met = f"awry >= {_AIM_RESEARCH:g}x", over.median >= _AIM_RESEARCH
    difference = differences.get(key)
    return Row(
        key=key,
        name=path.name,
        tokens_per_s=median(speeds[key]),
        ratio=to_bare,
        aim=aim,
        met=met if judged else None,
        largest_difference=difference,
        agrees=None if difference is None else difference <= TOLERANCE,
        awry_ratio=over,
        note=path.note,
    )


def _generation_rows(generation: awry_path.Generation, speeds: dict[str, list[float]], judged: bool) -> list[Row]:
    change = ratio(speeds["f"], speeds["plain"])
    note = f"ratio to plain generation; relative change of the activations {generation.relative_change:.3f}"
    met = change.median >= _AIMS["f"] if judged else None
    return [
        Row("plain", "generation, plain", median(speeds["plain"])),
        Row("f", "generation, steered", median(speeds["f"]), change, f">= {_AIMS['f']}", met, note=note),
    ]


def _traffic(items: Sequence[Encoded], ours: Sequence[Batch], theirs: Sequence[Batch], size: Size) -> dict[str, Any]:
    lengths = sorted(len(item.ids) for item in items)
    return {
        "messages": len(items),
        "tokens": sum(lengths),
        "shortest": lengths[0],
        "median": int(median(lengths)),
        "longest": lengths[-1],
        "real_share_awry": sum(lengths) / sum(batch.ids.numel() for batch in ours),
        "real_share_arrival": sum(lengths) / sum(batch.ids.numel() for batch in theirs),
        "arrival_batch": _ARRIVAL_BATCH,
        "generation_prompts": size.prompts,
        "generation_tokens": size.new_tokens,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all models here are folders; nothing is looked up
    sys.exit(main())
