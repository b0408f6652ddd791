from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from probes.errors import DataError
from probes.evaluation import Interval
from probes.statistics.cosine import true_cosine


def rows(
    rng: np.random.Generator, truth: float, sizes: tuple[int, int], width: int, gap: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two clouds, the first `gap` further along a vector whose cosine to the first axis is `truth`."""
    scale = np.r_[3.0, 2.0, np.ones(width - 2)]
    a, b = (rng.normal(0, 1, (n, width)) * scale for n in sizes)
    a[:, 0] += gap * truth
    a[:, 1] += gap * np.sqrt(1 - truth**2)
    return a, b


def found(truth: float, sizes: tuple[int, int], width: int, gap: float, times: int) -> list[Interval]:
    rng = np.random.default_rng(0)
    unit = np.eye(width)[0]
    return [true_cosine(unit, *rows(rng, truth, sizes, width, gap)) for _ in range(times)]


@pytest.mark.parametrize(("sizes", "width"), [((10, 40), 20), ((30, 60), 200), ((48, 48), 100)])
@pytest.mark.parametrize("truth", [-0.8, 0.0, 0.8, 1.0])
def test_the_interval_covers(truth: float, sizes: tuple[int, int], width: int) -> None:
    intervals = found(truth, sizes, width, 4.0, 300)
    assert np.mean([i.low <= truth <= i.high for i in intervals]) >= 0.93


def test_the_figure_is_without_the_noise_that_the_plain_cosine_has() -> None:
    intervals = found(0.8, (10, 40), 576, 4.0, 60)
    assert np.mean([i.value for i in intervals]) == pytest.approx(0.8, abs=0.08)
    rng = np.random.default_rng(0)
    differences = [np.subtract(*(x.mean(0) for x in rows(rng, 0.8, (10, 40), 576, 4.0))) for _ in range(60)]
    assert np.mean([d[0] / np.linalg.norm(d) for d in differences]) < 0.5


def test_where_there_is_no_difference_anything_may_be() -> None:
    assert np.mean([i.high - i.low for i in found(0.8, (30, 30), 50, 0.0, 40)]) > 1.5


def test_a_difference_along_the_vector_alone() -> None:
    a = np.c_[np.array([5.0, 6.0, 7.0, 6.0]), np.zeros((4, 3))]
    b = np.c_[np.array([0.0, 1.0, 2.0]), np.zeros((3, 3))]
    assert true_cosine(np.eye(4)[0], a, b) == Interval(1.0, 1.0, 1.0, 7)
    assert true_cosine(-np.eye(4)[0], a, b).value == -1
    with pytest.raises(DataError, match="4 and 2 rows"):
        true_cosine(np.eye(4)[0], a, b[:2])
