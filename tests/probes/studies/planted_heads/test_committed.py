"""What docs/studies/planted-heads/RESULT.json says of SmolLM2: the truth holds, for every seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probes.studies.framework.result import read_result
from probes.studies.planted_heads.methods import METHODS, YARDSTICK

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def trials() -> list[dict[str, Any]]:
    found = read_result(ROOT / "docs" / "studies" / "planted-heads").measured
    assert found["planted"]
    return list(found["trials"])


def test_three_seeds_of_three_heads_in_three_blocks(trials: list[dict[str, Any]]) -> None:
    assert len({trial["seed"] for trial in trials}) >= 3
    assert len({tuple(trial["heads"]) for trial in trials}) == len(trials)
    assert all(len({head.partition(",")[0] for head in trial["heads"]}) == 3 for trial in trials)


def test_the_behaviour_is_there_and_was_not_before(trials: list[dict[str, Any]]) -> None:
    for trial in trials:
        assert trial["there"]["planted"]["margin"]["low"] > trial["there"]["base"]["margin"]["high"] + 1


def test_the_planted_heads_are_found_with_every_seed(trials: list[dict[str, Any]]) -> None:
    for trial in trials:
        assert set(trial["methods"]) == set(METHODS)
        assert trial["methods"][YARDSTICK]["top_3"] >= 0.8
        assert trial["methods"][YARDSTICK]["scored"] == 270
