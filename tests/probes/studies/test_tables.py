from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from probes.studies.tables import interval, plain, table


def test_what_json_lacks_is_null_and_keys_are_texts() -> None:
    made = plain({1: (math.nan, -math.inf, True, None), "b": [np.float64(0.5), np.int64(3), {"c": np.nan}], "d": "x"})
    assert made == {"1": [None, None, True, None], "b": [0.5, 3, {"c": None}], "d": "x"}
    assert json.dumps(made, allow_nan=False)


def test_only_floats_are_rounded() -> None:
    made = plain({"a": [1.23456, 12345678901], "b": True, "c": math.inf}, lambda x: round(x, 2))
    assert made == {"a": [1.23, 12345678901], "b": True, "c": None}
    assert made["b"] is True


@pytest.mark.parametrize(
    ("figure", "options", "said"),
    [
        ({"value": 0.5, "low": 0.415, "high": 0.6, "n": 9}, {}, "0.50 [0.41, 0.60]"),
        ({"value": -1.25, "low": -2.0, "high": 0.0}, {"digits": 1}, "-1.2 [-2.0, 0.0]"),
        (None, {}, ""),
        (None, {"missing": "-"}, "-"),
    ],
)
def test_a_figure_stands_with_its_interval(figure: dict[str, float] | None, options: dict[str, Any], said: str) -> None:
    assert interval(figure, **options) == said


def test_a_table_is_markdown_and_ends_with_an_empty_line() -> None:
    assert table(["a", "b"], [["1", "2"], ["3", ""]]) == ["| a | b |", "|---|---|", "| 1 | 2 |", "| 3 |  |", ""]
    assert table(["a"], []) == ["| a |", "|---|", ""]
