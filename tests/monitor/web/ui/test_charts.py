"""Where marks go: by hand, and for any scores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.web.ui.charts import HEIGHT, WIDTH, distribution, head_map, timeline
from storage.queries.overview import Score

BEGAN = datetime(2026, 3, 1, 14, 0, tzinfo=UTC)


def score(n: int, value: float, threshold: float = 0.5) -> Score:
    at = BEGAN + timedelta(seconds=n)
    return Score("topic", 0, n, 0, value, threshold, value > threshold, False, at, f"m{n}", None)


def pairs(points: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in points.split())]


def test_higher_scores_are_higher_and_later_ones_further_right() -> None:
    chart = timeline([score(0, 0.1), score(1, 0.9), score(2, 0.4)])
    assert chart is not None
    low, high, middle = chart.dots
    assert low.y > middle.y > high.y
    assert low.x < high.x < middle.x
    assert chart.flagged == 1
    # The line of the threshold runs between what is flagged and what is not.
    assert {y for _, y in pairs(chart.threshold)} == {pairs(chart.threshold)[0][1]}
    assert high.y < pairs(chart.threshold)[0][1] < middle.y
    assert (chart.columns[0].label, chart.columns[-1].label) == ("14:00:00", "14:00:02")


def test_a_threshold_that_changed_is_a_step() -> None:
    chart = timeline([score(0, 0.1), score(1, 0.1), score(2, 0.1, 0.8), score(3, 0.1, 0.8)])
    assert chart is not None
    levels = [y for _, y in pairs(chart.threshold)]
    assert levels[0] == levels[1] > levels[2] == levels[3]


def test_nothing_makes_no_chart() -> None:
    assert timeline([]) is None
    assert distribution({}, [(0.0, 0.0), (1.0, 1.0)], 0.5) is None
    assert head_map([]) is None


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
        min_size=1,
        max_size=40,
    )
)
@example([(0.0, 2.2e-313)])
@example([(1e6, 1e6 - 1e-10)])
@example([(1e6, 1e6 - 1e-3)])
def test_every_mark_is_inside(values: list[tuple[float, float]]) -> None:
    chart = timeline([score(n, value, threshold) for n, (value, threshold) in enumerate(values)])
    assert chart is not None
    marks = [(dot.x, dot.y) for dot in chart.dots] + pairs(chart.threshold)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in marks)
    assert all(0 <= row.at <= HEIGHT for row in chart.rows)
    assert len(chart.dots) == len(values)


def test_bars_are_shares_and_those_above_the_threshold_are_marked() -> None:
    chart = distribution({-2: 30, 3: 60, 7: 10}, [], 0.6)
    assert chart is not None
    assert chart.n == 100
    heights = [bar.height for bar in chart.bars]
    assert heights[0] / heights[1] == pytest.approx(0.5)
    assert [bar.flagged for bar in chart.bars] == [False, False, True]
    assert chart.bars[2].label == "0.7 to 0.8: 10.0%"
    assert chart.threshold is not None
    assert chart.bars[1].x < chart.threshold < chart.bars[2].x
    assert chart.expected == ""


def test_the_outline_is_what_the_calibration_had() -> None:
    """Half of it between 0 and 0.1, the other half evenly up to 0.3: shares of a half, a quarter and a quarter."""
    chart = distribution({0: 1, 2: 1}, [(0.0, 0.0), (0.5, 0.1), (1.0, 0.3)], None)
    assert chart is not None
    heights = [chart.bars[0].y + chart.bars[0].height - y for _, y in pairs(chart.expected)]
    assert heights[:6:2] == pytest.approx(
        [chart.bars[0].height, chart.bars[0].height / 2, chart.bars[0].height / 2], abs=0.1
    )
    assert chart.threshold is None


def test_a_head_map_has_the_deepest_layer_on_top() -> None:
    rows = [
        {"layer": 2, "head": 5, "score": 0.5},
        {"layer": 9, "head": 5, "score": -1.0},
        {"layer": 9, "head": 0, "score": 0.25},
    ]
    found = head_map(rows)
    assert found is not None
    shallow, deep, other = found.cells
    assert deep.y < shallow.y
    assert deep.y == other.y
    assert other.x < deep.x == shallow.x
    assert [cell.strength for cell in found.cells] == [0.5, -1.0, 0.25]
    assert [tick.label for tick in found.columns] == ["0", "5"]
    assert max(cell.y + found.size for cell in found.cells) < found.height


def test_heads_that_all_score_nothing() -> None:
    found = head_map([{"layer": 0, "head": 0, "score": 0.0}])
    assert found is not None
    assert found.cells[0].strength == 0
