"""What it saves to read no token twice: equal messages, messages within others, shared beginnings.

How to run: `python -m benchmarks.reuse [--out docs/bench-reuse.json] [--rounds 5] [--research]`, on a machine that does
nothing else. SmolLM2-135M-Instruct in float32 on the CPU with one thread, the shipped probe `harmful-request`; with
`--model gemma3-270m` (`awry models get`) a random direction half-way in it, read the same way. Token ids are drawn at
random, since what they mean does not change what they cost. Rows:

- one batch: 16 messages, 80 % of each a system prompt in common
- across batches: the same system prompt, 8 batches of 8
- conversations: 50 conversations of 8 turns, turn by turn over all of them, batches of 64
- duplicates: 20 messages, 60 % of which are there already
- nothing shared: 40 messages of unlike lengths

Each is read in awry's batches without reuse (`off`) and with it (`on`), in turns; a ratio is off / on of CPU seconds in
one round, and what is written is the median over rounds with the extremes. Scores of both are compared.

With `--research` two more rows, in 3 rounds at most, read at `final` and all heads by awry and by transformers with
hooks, nnsight and TransformerLens (extra `bench`) in padded batches of 8 as they arrive; wall-clock seconds:

- 16 messages, 80 % of each a system prompt in common
- a mix: 8 conversations of 5 turns of 40 tokens, each message with all of its turns so far, and 20 messages of 50
  tokens, all behind one system prompt of 200 tokens; 12 of the 72 messages are there twice
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import others, paths
from benchmarks.grafana_queries import host
from benchmarks.messages import padded_batches
from probes.capture.aggregation import parse_aggregation
from probes.capture.batches import Batch, Encoded, batches
from probes.capture.sites import Site, site_width
from probes.card import load_probe
from probes.directions import Direction
from probes.model import builtin
from probes.model.load import ChatModel, load_chat_model
from probes.model.spans import TurnSpan
from probes.reuse.check import settle
from probes.reuse.scores import scored
from probes.reuse.sequences import SequenceReader
from probes.scoring import Reader, Scorer

Batches = list[list[Encoded]]
_KEPT = 512 * 1024 * 1024


def item(*parts: Sequence[int]) -> Encoded:
    """A message whose last part is the user's turn that is scored, behind what it has in common with others."""
    ids = tuple(i for part in parts for i in part)
    turn = TurnSpan(0, "user", max(1, len(ids) - len(parts[-1])), len(ids))
    return Encoded(ids, len(ids), turns=(turn,), last_user=0, spans="known")


def traffic(vocabulary: int) -> dict[str, Batches]:
    """The rows' messages by batch."""
    draw = random.Random(7)

    def ids(count: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(count)]

    system = ids(200)
    talks = [[ids(30)] for _ in range(50)]
    turns = []
    for _ in range(8):
        for talk in talks:
            talk.append(ids(12))
            turns.append(item(*talk))
    own = [item(ids(100)) for _ in range(8)]
    lengths = np.random.default_rng(7).lognormal(4.3, 0.7, 40).clip(16, 600).astype(int)
    return {
        "80 % in common, one batch": [[item(system, ids(50)) for _ in range(16)]],
        "80 % in common, 8 batches": [[item(system[:120], ids(30)) for _ in range(8)] for _ in range(8)],
        "50 conversations of 8 turns": [turns[n : n + 64] for n in range(0, len(turns), 64)],
        "60 % duplicates": [[draw.choice(own) if n >= 8 else own[n] for n in range(20)]],
        "nothing in common": [[item(ids(int(n))) for n in lengths]],
    }


def plainly(scorer: Scorer, given: Batches) -> list[torch.Tensor]:
    """Scores without reuse, a tensor for each batch."""
    made = []
    for items in given:
        total = torch.empty(len(items), len(scorer.readers))
        for batch in batches(items, scorer.projection.device):
            total[list(batch.rows)] = scorer(batch).total
        made.append(total)
    return made


def reusing(scorer: Scorer, reader: SequenceReader, given: Batches) -> list[torch.Tensor]:
    """Scores with reuse, a tensor for each batch."""
    made = []
    for items in given:
        total = torch.empty(len(items), len(scorer.readers))
        for batch, scores in scored(items, scorer, reader):
            total[list(batch.rows)] = scores.total
        made.append(total)
    return made


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> tuple[float, Any]:
    began = clock()
    found = work()
    return clock() - began, found


def reader_of(chat: ChatModel) -> Reader:
    """The shipped probe's, or on another model one that reads half-way in the same way."""
    probe = load_probe("harmful-request")
    if chat.name == builtin.SMOLLM2:
        return probe.reader
    site = Site("residual", chat.layout.n_blocks // 2)
    draw = np.random.default_rng(7)
    width = site_width(site, chat.layout)
    return Reader((Direction(site, draw.standard_normal(width), draw.standard_normal(width), 1.0),), probe.aggregation)


def measure(chat: ChatModel, rounds: int) -> dict[str, Any]:
    scorer = Scorer(chat.layout, [reader_of(chat)], chat.device)
    settled = SequenceReader(scorer.projection, max_bytes=_KEPT)
    report: dict[str, Any] = {"off at start": settle(settled, scorer, chat.vocabulary, 1e-4)}
    report["fixed tokens of a pass"] = settled.fixed_tokens
    for name, given in traffic(chat.vocabulary).items():
        ratios, most, times = [], 0.0, []
        for turn in range(rounds):
            reader = SequenceReader(
                scorer.projection,
                max_bytes=_KEPT,
                reuse=settled.reuse,
                fixed_tokens=settled.fixed_tokens,
            )
            ways: list[Callable[[], list[torch.Tensor]]] = [
                partial(plainly, scorer, given),
                partial(reusing, scorer, reader, given),
            ]
            found = [seconds(way) for way in (ways if turn % 2 == 0 else ways[::-1])]
            (off, wanted), (on, got) = found if turn % 2 == 0 else found[::-1]
            ratios.append(off / on)
            times.append((off, on))
            most = max(most, *(float((a - b).abs().max()) for a, b in zip(wanted, got, strict=True)))
        report[name] = {
            "ratio": round(median(ratios), 2),
            "extremes": [round(min(ratios), 2), round(max(ratios), 2)],
            "cpu_seconds_off": round(median(t for t, _ in times), 2),
            "cpu_seconds_on": round(median(t for _, t in times), 2),
            "messages": sum(map(len, given)),
            "tokens": reader.tokens_read,
            "tokens_run": reader.tokens_run,
            "kept_mb": round(reader.kept_bytes / 1e6, 1),
            "largest_difference": most,
        }
        print(f"{name:30} {report[name]}", flush=True)
    return report


def shared(vocabulary: int) -> dict[str, list[Encoded]]:
    """The messages of the rows of `research`."""
    draw = random.Random(11)

    def ids(count: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(count)]

    system = ids(200)
    mix = [item(system, ids(50)) for _ in range(20)]
    for _ in range(8):
        talk = [system]
        for _ in range(5):
            talk.append(ids(40))
            mix.append(item(*talk))
    mix += draw.sample(mix, 12)
    draw.shuffle(mix)
    return {
        "80 % in common, one batch": [item(system, ids(50)) for _ in range(16)],
        "a mix behind one system prompt": mix,
    }


def research(chat: ChatModel, rounds: int) -> dict[str, Any]:
    """awry with reuse beside research code."""
    folder = Path(builtin.resolve(builtin.SMOLLM2, _state()))
    probes, last = paths.random_probes(chat), parse_aggregation("last_prompt")
    scorer = Scorer(chat.layout, [Reader((probes.final,), last), Reader(probes.heads, last)], chat.device)
    makers: dict[str, Callable[[], paths.Path]] = {
        "transformers": lambda: others.transformers_path(chat),
        "nnsight": lambda: others.nnsight_path(chat, folder),
        "TransformerLens": lambda: others.lens_path(chat, folder),
    }
    rows = shared(chat.vocabulary)
    report: dict[str, Any] = {name: {} for name in rows}
    for name, make in makers.items():
        try:
            path = make()
        except ImportError as error:
            for row in rows:
                report[row][name] = {"missing": str(error)}
            continue
        for row, items in rows.items():
            report[row][name] = _beside(scorer, items, path, padded_batches(items, chat.device, 8), rounds)
            print(f"{row:32} {name:16} {report[row][name]}", flush=True)
    return report


def _beside(
    scorer: Scorer, items: list[Encoded], path: paths.Path, theirs: Sequence[Batch], rounds: int
) -> dict[str, Any]:
    path.step(theirs[0])
    ratios = []
    for _ in range(rounds):
        reader = SequenceReader(scorer.projection, max_bytes=_KEPT)
        own, _ = seconds(partial(reusing, scorer, reader, [items]), time.perf_counter)
        other, _ = seconds(partial(_steps, path, theirs), time.perf_counter)
        ratios.append(other / own)
    return {"ratio": round(median(ratios), 2), "extremes": [round(min(ratios), 2), round(max(ratios), 2)]}


def _steps(path: paths.Path, given: Sequence[Batch]) -> None:
    for batch in given:
        path.step(batch)


def _state() -> Path:
    from monitor.settings import default_state_dir

    return default_state_dir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--research", action="store_true")
    parser.add_argument("--model", default=builtin.SMOLLM2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    chat = load_chat_model(given.model, _state(), dtype="float32", device="cpu")
    report: dict[str, Any] = {"machine": host(), "model": chat.name, "rounds": given.rounds}
    report |= measure(chat, given.rounds)
    if given.research:
        report["against research code"] = research(chat, min(3, given.rounds))
    if given.out is not None:
        given.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
