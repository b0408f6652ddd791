from __future__ import annotations

import numpy as np
import pytest

from probes.capture.batches import Encoded, encode
from probes.capture.sites import Site
from probes.conditions import LAST_PROMPT, Condition, activations_by_condition
from probes.directions import Direction
from probes.errors import DataError
from probes.model.load import ChatModel
from probes.whitening import token_covariance, whitened
from tests.support.models.tiny import shared_chat, user

TEXTS = ["one two three", "a longer text of more words than the first", "short", "yes and no and perhaps"]


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return shared_chat("llama")


def tokens_of(chat: ChatModel, site: Site, span: str) -> np.ndarray:
    """Activations of each token of a span, read as the last of a message that ends there: a slow reference."""
    rows = []
    for text in TEXTS:
        item = encode(chat, user(text), spans=True)
        inside = [i for t in item.ranges("user") for i in range(t.start, t.stop)]
        for place in inside if span == "user" else range(len(item.ids)):
            ends_here = Encoded(item.ids[: place + 1], place + 1)
            rows.append(activations_by_condition([(Condition(chat, None), ends_here)], [site], LAST_PROMPT)[site][0])
    return np.array(rows, dtype=np.float64)


@pytest.mark.parametrize("site", [Site("residual", 1), Site("final"), Site("head", 1, 2)], ids=str)
@pytest.mark.parametrize("span", ["user", "prompt"])
def test_the_covariance_is_that_of_the_spans_single_tokens(chat: ChatModel, site: Site, span: str) -> None:
    items = [encode(chat, user(text), spans=True) for text in TEXTS]
    found = token_covariance(chat, items, [site], span)[site]  # type: ignore[arg-type]
    expected = np.cov(tokens_of(chat, site, span).T, bias=True)
    assert found == pytest.approx(expected, abs=1e-4)


def planted(seed: int = 0, width: int = 12) -> tuple[Direction, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((width, width))
    vector = rng.standard_normal(width)
    return Direction(Site("residual", 0), vector, np.zeros(width), 1.0), mixing @ mixing.T, rng


def test_values_stay_in_class_gaps_and_separate_better() -> None:
    direction, covariance, rng = planted()
    found = whitened(direction, covariance, 0.01)
    noise = rng.multivariate_normal(np.zeros(12), covariance, 4000)
    aligned, misaligned = noise, noise + direction.vector

    def values(d: Direction, rows: np.ndarray) -> np.ndarray:
        return (rows - d.centre) @ d.vector / d.norm**2

    assert values(found, misaligned).mean() - values(found, aligned).mean() == pytest.approx(1.0)
    assert values(found, aligned).std() < 0.7 * values(direction, aligned).std()


def test_all_shrinkage_is_the_plain_difference_in_means() -> None:
    direction, covariance, _ = planted(1)
    assert whitened(direction, covariance, 1.0).vector == pytest.approx(direction.vector)


@pytest.mark.parametrize("shrinkage", [0.0, -0.1, 1.1, float("nan")])
def test_a_shrinkage_that_is_none_is_refused(shrinkage: float) -> None:
    direction, covariance, _ = planted()
    with pytest.raises(DataError, match="shrinkage"):
        whitened(direction, covariance, shrinkage)
