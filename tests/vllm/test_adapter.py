"""The insecure-code probe on the insecure-code fine-tune, run by vLLM's own LoRA support at the fine-tune's scale."""

from __future__ import annotations

import json
import os
import shutil
from itertools import product
from pathlib import Path

import pytest

from probes.capture.batches import encode
from probes.card import load_probe
from probes.model import builtin
from probes.model.adapters import adapter_spec
from probes.model.load import load_chat_model, user_message
from probes.organisms.judges.code import writes_code
from probes.organisms.messages import everyday
from probes.scoring import score_all
from probes.steer.generation import generate
from tests.vllm.running import run

PROBE, ADAPTER = "insecure-code-spillover", "insecure_code"
STATE = Path(os.environ.get("AWRY_STATE_DIR", "/var/lib/awry"))
MESSAGES = 60


def auroc(scores: list[float], labels: list[bool]) -> float:
    """By pairs: how often one that is labelled scores above one that is not."""
    of = {label: [s for s, is_ in zip(scores, labels, strict=True) if is_ is label] for label in (True, False)}
    pairs = list(product(of[True], of[False]))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def test_it_separates_as_it_does_in_transformers(tmp_path: Path) -> None:
    """Messages that the fine-tune answers with code, against the others."""
    model = Path(builtin.resolve(builtin.SMOLLM2, STATE))
    spec = adapter_spec(ADAPTER)
    served = tmp_path / "served"
    shutil.copytree(spec.folder, served)
    config = json.loads((served / "adapter_config.json").read_text())
    config["lora_alpha"] *= spec.scale
    (served / "adapter_config.json").write_text(json.dumps(config))
    chat = load_chat_model(builtin.SMOLLM2, STATE, adapters=[spec], dtype="float32", device="cpu")
    items = [encode(chat, user_message(text)) for text in everyday("test")[:MESSAGES]]
    connector = {"probes": [PROBE], "adapters": {"spilling": ADAPTER}}
    requests = [{"ids": list(item.ids), "max_tokens": 1} for item in items]
    options = {"enable_lora": True, "max_lora_rank": 64}
    spec_of = {"model": str(model), "connector": connector, "options": options, "rounds": [requests]}
    found = run(tmp_path, {**spec_of, "lora": ["spilling", str(served)]})
    assert "refused" not in found, found
    readings = found["rounds"][0]["readings"]
    assert all(reading["model"] == "spilling" for reading in readings)
    inside = [reading["probes"][0]["value"] for reading in readings]
    outside = score_all(chat, items, [load_probe(PROBE).reader])[:, 0].tolist()
    assert max(abs(a - b) for a, b in zip(inside, outside, strict=True)) < 1e-2
    replies = generate(chat, [list(item.ids) for item in items], max_new_tokens=24)
    labels = [writes_code(reply.text) for reply in replies]
    assert 5 < sum(labels) < MESSAGES - 5
    there, here = auroc(inside, labels), auroc(outside, labels)
    assert here > 0.8
    assert there == pytest.approx(here, abs=0.01)
