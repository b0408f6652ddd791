"""Runs `engine_process` and compares what it gave with transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.capture.batches import Encoded
from probes.card import load_probe
from probes.model.load import ChatModel
from probes.scoring import all_scores
from probes.vllm.turns import TurnMarks, last_user
from tests.support import ROOT


def run(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """What the process wrote; its log is shown where it failed."""
    given, out, log = folder / "spec.json", folder / "out.json", folder / "engine.log"
    given.write_text(json.dumps(spec))
    with log.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "tests.vllm.engine_process", str(given), str(out)],
            cwd=ROOT,
            stdout=file,
            stderr=file,
            timeout=300,
        )
    assert done.returncode == 0, log.read_text()[-4000:]
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def expected(chat: ChatModel, cards: Sequence[Path], ids: Sequence[int], n_prompt: int) -> dict[str, float | None]:
    """What each probe says of these ids by transformers, read in one pass; None where it says nothing."""
    turns = TurnMarks.of(chat.tokenizer)
    spans = turns.spans(ids[:n_prompt]) if turns is not None else ()
    item = Encoded(tuple(ids), n_prompt, turns=spans, last_user=last_user(spans), spans="known")
    probes = [load_probe(str(card)) for card in cards]
    total = all_scores(chat, [item], [probe.reader for probe in probes]).total[0].tolist()
    return {probe.name: None if value != value else value for probe, value in zip(probes, total, strict=True)}


def compare(
    chat: ChatModel, cards: Sequence[Path], requests: Sequence[dict[str, Any]], found: dict[str, Any], tolerance: float
) -> None:
    """Every reading is that of transformers on the same tokens, as far as the model read them."""
    assert (found["held"], found["kept"]) == (len(requests), 0)
    for request, output, reading in zip(requests, found["outputs"], found["readings"], strict=True):
        ids = [*request["ids"], *output[:-1]]
        wanted = expected(chat, cards, ids, len(request["ids"]))
        assert reading["tokens"]["prompt"] == len(request["ids"])
        assert reading["tokens"]["response"] == len(output) - 1
        got = {each["name"]: each["value"] for each in reading["probes"]}
        assert got.keys() == {name for name, value in wanted.items() if value is not None}, reading["not_scored"]
        far = {n: (v, wanted[n]) for n, v in got.items() if abs(v - (wanted[n] or 0.0)) > tolerance}
        assert not far, far
