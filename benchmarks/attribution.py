"""What Ships of every head costs, against one full forward per head; the same numbers, one command.

How to run: `python -m benchmarks.attribution [--out docs/bench-attribution.json] [--prompts 16]`, on a machine that
does nothing else. `--quick` is a smoke test.

Contract: SmolLM2-135M-Instruct (30 layers x 9 query heads), fp32 on the CPU, our own harmful requests under the model's
chat template, undifferentiated attention. Rows:

- loop: one unpadded forward of the whole model a head and a prompt, as research code has it
- batch: one forward of the whole model a head, all prompts in one padded batch; the measure
- batch-1: the same with the language-model head at the last position alone: what that saves by itself
- awry: `probes.heads.attribution.ships`

`batch` runs over all heads, `loop` and `batch-1` over one in nine, which are multiplied up. Every path's scores are
compared with awry's; more than 1e-4 nats apart is a MISMATCH, and the exit status is 1. Paths take turns over thirds of
the heads, so that a machine's drift hits all alike. Units: seconds of the process on the CPU (all threads), beside
wall-clock seconds; ratios are of CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import machine
from probes.capture.batches import Encoded, encode
from probes.capture.sites import Site, head_sites
from probes.heads.ablation import ablating
from probes.heads.attribution import ships
from probes.model import builtin
from probes.model.load import ChatModel, load_chat_model, user_message
from probes.organisms.messages import requests
from probes.progress import Progress

AIM = 4.0
TOLERANCE = 1e-4
_EVERY = 9


@dataclass
class Row:
    """One path: seconds over `pairs` (head by prompt), and the largest difference of its scores from awry's."""

    key: str
    name: str
    cpu_s: float = 0.0
    wall_s: float = 0.0
    pairs: int = 0
    difference: float | None = None
    scores: dict[tuple[int, Site], float] = field(default_factory=dict, repr=False)

    @contextmanager
    def timed(self) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu_s += time.process_time() - cpu
        self.wall_s += time.perf_counter() - wall

    def all_cpu_s(self, pairs: int) -> float:
        """CPU seconds for so many pairs, at this path's speed."""
        return self.cpu_s * pairs / self.pairs


def _loop(chat: ChatModel, items: Sequence[Encoded]) -> Callable[[Site | None], Tensor]:
    """Logits at the last token of each prompt, by a forward each."""

    def run(head: Site | None) -> Tensor:
        with torch.inference_mode(), ablating(chat, [head] if head else []):
            rows = [chat.model(input_ids=torch.tensor([x.ids]), use_cache=False).logits[0, -1] for x in items]
        return torch.stack(rows)

    return run


def _batch(chat: ChatModel, items: Sequence[Encoded], *, last_only: bool) -> Callable[[Site | None], Tensor]:
    """The same by one forward over all prompts, padded on the left so that their last tokens are in one column."""
    width = max(len(x.ids) for x in items)
    ids = torch.tensor([[0] * (width - len(x.ids)) + list(x.ids) for x in items])
    mask = torch.tensor([[0] * (width - len(x.ids)) + [1] * len(x.ids) for x in items])
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def run(head: Site | None) -> Tensor:
        with torch.inference_mode(), ablating(chat, [head] if head else []):
            out = chat.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=int(last_only),
            )
        logits: Tensor = out.logits[:, -1]
        return logits

    return run


def _kl(plain: Tensor, off: Tensor) -> list[float]:
    p, q = plain.double().log_softmax(-1), off.double().log_softmax(-1)
    divergence: list[float] = (p.exp() * (p - q)).sum(-1).tolist()
    return divergence


def measure(
    chat: ChatModel, items: Sequence[Encoded], heads: Sequence[Site], progress: Progress, *, parts: int = 3
) -> list[Row]:
    """All rows."""
    batch, last = (_batch(chat, items, last_only=only) for only in (False, True))
    paths = {
        "loop": (Row("loop", "a forward a head and prompt"), _loop(chat, items), _EVERY),
        "batch": (Row("batch", "a forward a head, all prompts in a padded batch"), batch, 1),
        "batch-1": (Row("batch-1", "the same, language-model head at the last position"), last, _EVERY),
    }
    awry = Row("awry", "replay with shared depth and prefix")
    plain = {key: run(None) for key, (_, run, _) in paths.items()}  # which also warms up
    ships(chat, items[:2], heads[:2])
    for number in range(parts):
        # Each part has heads of all layers: shared depth then saves what it saves over the whole model.
        part = heads[number::parts]
        progress(f"part {number + 1} of {parts}: {len(part)} heads")
        for key, (row, run, every) in paths.items():
            for head in part[::every]:
                with row.timed():
                    logits = run(head)
                row.pairs += len(items)
                row.scores.update({(i, head): kl for i, kl in enumerate(_kl(plain[key], logits))})
        with awry.timed():
            scores = ships(chat, items, part)
        awry.pairs += len(part) * len(items)
        awry.scores.update({(i, h): float(scores[i, h.layer, h.head]) for i in range(len(items)) for h in part})
    for row, _, _ in paths.values():
        row.difference = max(abs(kl - awry.scores[pair]) for pair, kl in row.scores.items())
    return [*(row for row, _, _ in paths.values()), awry]


def report(rows: Sequence[Row], items: Sequence[Encoded], *, command: str, quick: bool) -> dict[str, Any]:
    """Everything that a reader needs to judge the figures."""
    awry = rows[-1]
    shown = []
    for row in rows:
        figures = {k: v for k, v in vars(row).items() if k != "scores"}
        ratio = row.all_cpu_s(awry.pairs) / awry.cpu_s
        shown.append(figures | {"all_cpu_s": row.all_cpu_s(awry.pairs), "awry_is_times_as_fast": ratio})
    lengths = sorted(len(x.ids) for x in items)
    scores = np.array(list(awry.scores.values()))
    return {
        "rows": shown,
        "aim": AIM,
        "met": None if quick else shown[1]["awry_is_times_as_fast"] >= AIM,
        "agrees": all(row.difference is None or row.difference <= TOLERANCE for row in rows),
        "prompts": {"n": len(items), "shortest": lengths[0], "longest": lengths[-1], "tokens": sum(lengths)},
        "heads": awry.pairs // len(items),
        "largest_score": float(scores.max()),
        "machine": machine(),
        "command": command,
        "quick": quick,
    }


def markdown(found: dict[str, Any]) -> str:
    """The table and what stands below it."""
    lines = [
        "| path | CPU s, all heads | pairs timed | wall s | awry is | scores differ by |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        differs = "" if row["difference"] is None else f"{row['difference']:.1e}"
        lines.append(
            f"| {row['key']}: {row['name']} | {row['all_cpu_s']:.0f} | {row['pairs']} | {row['wall_s']:.0f} "
            f"| {row['awry_is_times_as_fast']:.2f}x | {differs} |"
        )
    prompts, about = found["prompts"], found["machine"]
    verdict = {True: "met", False: "missed", None: "not judged"}[found["met"]]
    lines += [
        "",
        f"{found['heads']} heads x {prompts['n']} prompts of {prompts['shortest']} to {prompts['longest']} tokens; aim "
        f">= {found['aim']:g}x of `batch`: {verdict}; scores {'agree' if found['agrees'] else 'MISMATCH'} (largest "
        f"{found['largest_score']:.2f} nats).",
        f"Machine: {about['cpu']}, {about['cores']} cores, {about['torch_threads']} threads, load "
        f"{about['load_average_1_5_15_min'][0]} at the end.",
        f"Command: {found['command']}",
    ]
    if found["quick"]:
        lines.append("--quick is a smoke test: its timings mean nothing and no aim is judged.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write the JSON; 1 when the scores do not agree."""
    from monitor.settings import default_state_dir

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attribution", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, help="write the figures there as JSON")
    parser.add_argument("--prompts", type=int, default=16, help="how many prompts (default 16)")
    parser.add_argument("--quick", action="store_true", help="2 prompts, a few heads: does it run?")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    chat = load_chat_model(builtin.SMOLLM2, default_state_dir(), dtype="float32", device="cpu", progress=_say)
    count = 2 if options.quick else options.prompts
    if not 2 <= count <= len(requests()):
        parser.error(f"--prompts must be in 2..{len(requests())}")
    asks = [pair["harmful"] for pair in requests()[:count]]
    items = [encode(chat, user_message(ask)) for ask in asks]
    heads = head_sites(chat.layout)[::45] if options.quick else head_sites(chat.layout)
    rows = measure(chat, items, heads, _say, parts=1 if options.quick else 3)
    found = report(rows, items, command=" ".join(["python -m benchmarks.attribution", *given]), quick=options.quick)
    print(markdown(found))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    return int(not found["agrees"])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
