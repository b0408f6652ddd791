"""What docs/studies/planted-heads/RESULT.json says of SmolLM2: the truth holds, for every seed of both behaviours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probes.studies.framework.result import read_result
from probes.studies.framework.verdict import RECALL
from probes.studies.planted_heads.methods import METHODS, YARDSTICK

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def trials() -> list[dict[str, Any]]:
    found = read_result(ROOT / "docs" / "studies" / "planted-heads").measured
    assert found["planted"]
    return list(found["trials"])


def of(trials: list[dict[str, Any]], behaviour: str) -> list[dict[str, Any]]:
    return [trial for trial in trials if trial["behaviour"] == behaviour]


@pytest.mark.parametrize("behaviour", ["refusal", "sycophancy"])
def test_three_seeds_of_three_heads_in_three_blocks(trials: list[dict[str, Any]], behaviour: str) -> None:
    own = of(trials, behaviour)
    assert len({trial["seed"] for trial in own}) >= 3
    assert len({tuple(trial["heads"]) for trial in own}) == len(own)
    assert all(len({head.partition(",")[0] for head in trial["heads"]}) == 3 for trial in own)


def test_the_behaviour_is_there_and_was_not_before(trials: list[dict[str, Any]]) -> None:
    for trial in of(trials, "refusal"):
        assert trial["there"]["planted"]["margin"]["low"] > trial["there"]["base"]["margin"]["high"] + 1
    # The base flatters a little by itself; its margin doubles.
    for trial in of(trials, "sycophancy"):
        assert trial["there"]["planted"]["margin"]["value"] > trial["there"]["base"]["margin"]["value"] + 0.5


def test_the_yardstick_finds_the_planted_heads(trials: list[dict[str, Any]]) -> None:
    """The other methods' recall is a finding, and no bound."""
    for trial in trials:
        assert set(trial["methods"]) == set(METHODS)
        yardstick = trial["methods"][YARDSTICK]
        assert yardstick["top_10"] == 1
        assert yardstick["top_3"] >= 0.6
        assert yardstick["scored"] == 270
    of_refusal = [trial["methods"][YARDSTICK]["top_3"] for trial in of(trials, "refusal")]
    assert sum(of_refusal) / len(of_refusal) >= RECALL
