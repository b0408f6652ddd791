"""Mistakes in flags and files are found before a model is loaded: every command here names a model that cannot be
loaded, and what it complains of is the flag."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import invoke, message_of
from tests.support.stream.worker import lines

MODEL = "./no-such-model"
FIT = "fit --name n --labelled labelled.jsonl"
EVAL = "eval --probe harmful-request --labelled labelled.jsonl"
ATTACK = "attack --probe harmful-request --harmful labelled.jsonl --benign benign.jsonl"
CALIBRATE = "calibrate --probe harmful-request --benign benign.jsonl"
PROMPTS = "--fit-prompts fit.jsonl --select-prompts select.jsonl --test-prompts test.jsonl"
SWEEP = f"sweep --adapter insecure_code {PROMPTS}"
DIRECTION = f"study direction --labelled labelled.jsonl --metric code {PROMPTS}"
# No integer, and no finite number.
HUGE = "9" * 5000
MISTAKES = [
    ("label none.jsonl", "none.jsonl"),
    ("label p.jsonl --metric cdoe", "metric"),
    ("label p.jsonl --out no/such/folder/x.jsonl", "out"),
    ("label p.jsonl --out folder", "out"),
    (f"{FIT} --benign none.jsonl", "none.jsonl"),
    (f"{FIT} --benign misaligned.jsonl", "benign"),
    (f"{FIT} --aggregation median", "aggregation"),
    (f"{FIT} --sites residual[x]", "site"),
    (f"{FIT} --sites residual[{HUGE}]", "site"),
    (f"{FIT} --aggregation max_rolling_mean({HUGE},user)", "aggregation"),
    (f"{FIT} --target-fpr 2", "target_fpr"),
    (f"{FIT} --fpr-at-most 0", "fpr_at_most"),
    (f"{FIT} --whiten 1.5", "whiten"),
    (f"{FIT} --choose-under base65 --choose-benign benign.jsonl", "base65"),
    (f"{FIT} --choose-under base64", "choose_under"),
    (f"{FIT} --out p.jsonl", "out"),
    (f"{FIT} --control-adapter benign_code", "control_adapter"),
    (f"{FIT} --adapter insecure_code --control-adapter none", "adapter"),
    (f"{FIT} --adapter folder", "adapter_config.json"),
    ("fit --name n --prompts p.jsonl", "adapter"),
    ("fit --name n", "data"),
    ("fit --name n --labelled p.jsonl", "label"),
    (f"{EVAL} --png no/such/folder/x.png", "png"),
    ("eval --probe none.json --labelled labelled.jsonl", "none.json"),
    ("eval --probe harmful-request --labelled p.jsonl", "label"),
    (f"{ATTACK} --families base65", "base65"),
    (f"{ATTACK} --adaptive hope", "adaptive"),
    (f"{ATTACK} --out p.jsonl/x", "out"),
    (f"{CALIBRATE} --target-fpr 1", "target_fpr"),
    (f"{CALIBRATE} --out p.jsonl", "out"),
    ("calibrate --probe harmful-request --benign misaligned.jsonl", "benign"),
    (f"{SWEEP} --blocks one,two", "blocks"),
    (f"{SWEEP} --blocks {HUGE}", "blocks"),
    (f"{SWEEP} --blocks nan", "blocks"),
    (f"{SWEEP} --attach none.json", "none.json"),
    (f"{SWEEP} --control-adapter none", "adapter"),
    (f"{DIRECTION} --sites residual[x]", "site"),
    (f"{DIRECTION} --metric no-such-program", "no-such-program"),
    (f"{DIRECTION} --labelled p.jsonl", "label"),
    (f"{DIRECTION} --out p.jsonl", "out"),
    ("study heads --adapter reckless_advice --only head[x]", "site"),
    ("study safety-heads --against none.json", "against"),
    (f"study safety-heads --top 1,{HUGE}", "top"),
    ("run --source p.jsonl --rules-file none.toml", "rules_file"),
    ("run --source p.jsonl --probe none.json", "none.json"),
    ("run --source p.jsonl --verdicts-out no/such/folder/x.jsonl", "verdicts_out"),
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """In the current folder."""
    rows = [{"id": str(i), "prompt": f"message {i}", "label": bool(i % 2)} for i in range(60)]
    lines(tmp_path / "labelled.jsonl", rows)
    lines(tmp_path / "misaligned.jsonl", [row for row in rows if row["label"]])
    lines(tmp_path / "benign.jsonl", [row for row in rows if not row["label"]])
    lines(tmp_path / "p.jsonl", [{"id": str(i), "prompt": f"message {i}"} for i in range(20)])
    for split in ("fit", "select", "test"):
        lines(tmp_path / f"{split}.jsonl", [{"id": str(i), "prompt": f"{split} {i}"} for i in range(20)])
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(("command", "named"), MISTAKES, ids=lambda text: text[:80])
def test_the_mistake_is_found_first(files: Path, command: str, named: str) -> None:
    message = message_of(invoke(*command.split(), "--model", MODEL, "--state-dir", files))
    assert named in message
    assert "cannot load" not in message


@pytest.mark.parametrize("command", ["label p.jsonl", FIT, EVAL, ATTACK, CALIBRATE, SWEEP])
def test_without_a_mistake_it_is_the_model(files: Path, command: str) -> None:
    assert "cannot load" in message_of(invoke(*command.split(), "--model", MODEL, "--state-dir", files))


def test_a_label_that_was_there_is_kept(files: Path, tiny_folder: Path) -> None:
    model = ("--model", tiny_folder / "tiny-chat", "--state-dir", files)
    done = invoke("label", "labelled.jsonl", "--max-new-tokens", "1", "--out", "out.jsonl", *model)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (files / "out.jsonl").read_text().splitlines()]
    assert [row["given_label"] for row in rows] == [bool(i % 2) for i in range(60)]
    assert "60 messages had a label, kept as given_label" in done.stderr
