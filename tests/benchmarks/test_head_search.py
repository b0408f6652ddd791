"""The head-search benchmark runs, its ways agree, and a way that does not agree is named. No timing is asserted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import head_search
from benchmarks.head_search import Figures
from probes.binary_choice import BinaryChoice
from probes.heads.choice_scoring import SteeringTrial
from probes.model.load import ChatModel
from tests.support.models.tiny import tiny_chat

pytestmark = pytest.mark.slow

QUESTIONS = [BinaryChoice(f"Which way, {i}?", ("Left.", "Right, please."), i % 2) for i in range(3)]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_search, "load_chat_model", lambda *_args, **_kwargs: tiny_chat("llama"))
    monkeypatch.setattr(head_search, "choices", lambda _name: QUESTIONS * 5)


def test_all_ways_agree_and_the_report_holds_them(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "bench.json"
    assert head_search.main(["--questions", "2", "--letters-stride", "4", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [(row["form"], row["name"]) for row in found["rows"]] == [
        (form, name) for form, (_, ways) in head_search.WAYS.items() for name in ways
    ]
    assert {row["trials"] for row in found["rows"] if row["form"] == "likelihood"} == {12 * 2}
    assert all(row["agrees"] and row["seconds"] > 0 for row in found["rows"])
    assert next(row["ratio"] for row in found["rows"] if row["name"] == "one head, all questions") == 1.0
    printed = capsys.readouterr().out
    assert "MISMATCH" not in printed
    assert printed.count("\n| ") == len(found["rows"])


def test_a_way_that_gives_other_figures_is_named_and_fails(
    tiny: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    against, ways = head_search.WAYS["likelihood"]

    def off(chat: ChatModel, questions: Sequence[BinaryChoice], trials: Sequence[SteeringTrial]) -> Figures:
        found: Figures = np.array(ways["+ shared depth"](chat, questions, trials))
        found[-1, 0, 1] += 1e-3
        return found

    monkeypatch.setitem(head_search.WAYS, "likelihood", (against, {**ways, "+ shared depth": off}))
    assert head_search.main(["--questions", "1", "--letters-stride", "0"]) == 1
    named = [line for line in capsys.readouterr().out.splitlines() if "MISMATCH" in line]
    assert len(named) == 1
    assert "+ shared depth" in named[0]
