from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from probes.errors import DataError
from probes.result_cache import ResultCache

ONE = {"model": "tiny", "seed": 1}


def only_file(folder: Path) -> Path:
    (path,) = [p for p in folder.rglob("*.json") if p.name != "identity.json"]
    return path


def test_what_was_kept_comes_back_under_the_same_identity_alone(tmp_path: Path) -> None:
    ResultCache(tmp_path, ONE).put("a", [1.5, float("nan"), {"b": None}])
    again = ResultCache(tmp_path, ONE)
    value = again.get("a")
    assert value[0] == 1.5
    assert np.isnan(value[1])
    assert value[2] == {"b": None}
    assert again.hits == 1
    assert again.get("b") is None
    assert ResultCache(tmp_path, {**ONE, "seed": 2}).get("a") is None


@pytest.mark.parametrize("damage", ["", "{", '{"name": "a"}', '{"name": "other", "value": 1}', "[]"])
def test_a_damaged_file_is_not_used(tmp_path: Path, damage: str) -> None:
    kept = ResultCache(tmp_path, ONE)
    kept.put("a", 1)
    only_file(tmp_path).write_text(damage)
    assert kept.get("a") is None
    kept.put("a", 2)
    assert kept.get("a") == 2


def test_damage_is_counted_and_a_missing_file_is_none(tmp_path: Path) -> None:
    kept = ResultCache(tmp_path, ONE)
    kept.put("a", 1)
    only_file(tmp_path).write_text(json.dumps({"name": "a", "value": 1})[:-3])
    kept.get("a")
    kept.get("never")
    assert kept.broken == 1


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="study folder: cannot write"):
        ResultCache(tmp_path / "out" / "kept", ONE)
