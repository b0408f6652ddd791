from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from probes.capture.aggregation import Aggregation
from probes.capture.batches import encode
from probes.capture.sites import Site, observing
from probes.directions import (
    Direction,
    cosine,
    difference_in_means,
    orthogonal_to,
    pooled_activations,
    pooled_by_aggregation,
    random_like,
)
from probes.errors import DataError, DirectionError
from tests.support.models.tiny import shared_chat, user

AT = Site("residual", 1)


def some(rows: int = 7, width: int = 32, seed: int = 0, shift: float = 0.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal((rows, width)) + shift).astype(np.float32)


def test_closed_form() -> None:
    bad, good = some(9, seed=1, shift=0.5), some(5, seed=2)
    d = difference_in_means(AT, bad, good)
    centre = [math.fsum(float(x) for x in good[:, i]) / 5 for i in range(32)]
    vector = [math.fsum(float(x) for x in bad[:, i]) / 9 - centre[i] for i in range(32)]
    np.testing.assert_allclose(d.centre, centre, rtol=1e-14)
    np.testing.assert_allclose(d.vector, vector, rtol=1e-12)
    assert d.norm == pytest.approx(math.sqrt(math.fsum(v * v for v in vector)), rel=1e-13)
    np.testing.assert_allclose(d.unit * d.norm, d.vector, rtol=1e-14)
    along = [math.fsum(float(x) * v for x, v in zip(row, vector, strict=True)) / d.norm for row in [*bad, *good]]
    mean = math.fsum(along) / 14
    assert d.sigma == pytest.approx(math.sqrt(math.fsum((a - mean) ** 2 for a in along) / 14), rel=1e-10)
    assert d.site == AT
    assert d.vector.dtype == d.centre.dtype == np.float64


def test_means_are_accumulated_in_float64() -> None:
    # In float32 the sum of 40,000 values near 1000 loses the difference of 0.01.
    good = np.full((40_000, 2), 1000.0, np.float32)
    bad = good.copy()
    bad[::2, 0] = np.float32(1000.0625)
    assert difference_in_means(AT, bad, good).vector[0] == pytest.approx(0.03125, rel=1e-9)


def test_equal_classes_are_an_error_that_asks_for_the_adapter() -> None:
    rows = some()
    with pytest.raises(DirectionError, match=r"residual\[1\]: zero.*Is the adapter switched on\?"):
        difference_in_means(AT, rows, rows)
    with pytest.raises(DirectionError, match="zero"):  # only rounding is left between the means
        difference_in_means(AT, rows[::-1].copy() * np.float32(1000), rows * np.float32(1000))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["misaligned", "aligned"])
def test_activations_that_are_not_finite_are_an_error(value: float, side: str) -> None:
    rows = {"misaligned": some(seed=1), "aligned": some(seed=2)}
    rows[side][3, 4] = value
    with pytest.raises(DirectionError, match=r"residual\[1\]: activations are not finite.*float32"):
        difference_in_means(AT, rows["misaligned"], rows["aligned"])


def test_one_class_alone_is_an_error() -> None:
    for bad, good in ((some(), some()[:0]), (some()[:0], some())):
        with pytest.raises(DataError, match="both a misaligned and an aligned row"):
            difference_in_means(AT, bad, good)


def test_a_direction_cannot_be_made_zero_infinite_or_crooked() -> None:
    ones = np.ones(4)
    for vector, centre, said in (
        (np.zeros(4), ones, "zero"),
        (np.array([1, np.nan, 0, 0]), ones, "not finite"),
        (ones, np.array([1, np.inf, 0, 0]), "not finite"),
        (ones, np.ones(5), "vector"),
    ):
        with pytest.raises(DirectionError, match=said):
            Direction(AT, vector, centre, 1.0)


@given(st.integers(0, 10_000))
def test_controls_have_the_norm_and_keep_site_and_centre(seed: int) -> None:
    d = difference_in_means(AT, some(seed=1, shift=0.4), some(seed=2))
    for control in (random_like(d, seed), orthogonal_to(d, seed)):
        assert control.norm == pytest.approx(d.norm, rel=1e-12)
        assert control.site == d.site
        assert control.centre is d.centre
        assert control.sigma == d.sigma
        assert abs(cosine(control, d)) < 0.9
    assert abs(cosine(orthogonal_to(d, seed), d)) < 1e-12


def test_controls_follow_their_seed() -> None:
    d = difference_in_means(AT, some(seed=1), some(seed=2))
    for make in (random_like, orthogonal_to):
        np.testing.assert_array_equal(make(d, 3).vector, make(d, 3).vector)
        assert abs(cosine(make(d, 3), make(d, 4))) < 0.9


def test_cosine() -> None:
    a = Direction(AT, np.array([3.0, 4.0]), np.zeros(2), 1.0)
    b = Direction(Site("final"), np.array([4.0, -3.0]), np.zeros(2), 1.0)
    c = Direction(AT, np.array([10.0, 0.0]), np.zeros(2), 1.0)
    assert cosine(a, b) == pytest.approx(0, abs=1e-15)
    assert cosine(a, c) == pytest.approx(0.6)
    assert cosine(a, a.with_vector(-a.vector)) == pytest.approx(-1)
    with pytest.raises(DirectionError, match="different widths"):
        cosine(a, Direction(AT, np.ones(3), np.zeros(3), 1.0))


SITES = [Site("residual", 0), Site("final"), Site("head", 1, 0), Site("head", 1, 3), Site("head", 2, 1)]


@pytest.mark.parametrize(
    "aggregation",
    [
        Aggregation("last", "prompt"),
        Aggregation("last", "response"),
        Aggregation("mean", "prompt"),
        Aggregation("max_rolling_mean", "response", 4),  # a maximum has no one vector: its span's mean
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_pooled_activations_equal_one_message_at_a_time(family: str, aggregation: Aggregation) -> None:
    chat = shared_chat(family)
    items = [encode(chat, user("m" * n), "r" * (n % 5 + 1)) for n in (30, 3, 18, 9, 60, 1)]
    told: list[int] = []
    got = pooled_activations(chat, items, SITES, aggregation, told.append)
    assert sum(told) == 6
    assert set(got) == set(SITES)
    for i, item in enumerate(items):
        seen: dict[Site, torch.Tensor] = {}
        places = {s if s.kind != "head" else Site("head", s.layer) for s in SITES}
        with torch.no_grad(), observing(chat.layout, {p: partial(seen.__setitem__, p) for p in places}) as run:
            run(input_ids=torch.tensor([item.ids]))
        for site in SITES:
            x = seen[Site("head", site.layer)][0, :, site.head] if site.kind == "head" else seen[site][0]
            x = x[: item.n_prompt] if aggregation.span == "prompt" else x[item.n_prompt :]
            wanted = x[-1] if aggregation.kind == "last" else x.mean(0)
            np.testing.assert_allclose(got[site][i], wanted.numpy(), atol=2e-5)


def test_a_span_in_several_places_is_pooled_over_all_of_them() -> None:
    chat = shared_chat("llama")
    talk = [*user("First thing."), {"role": "assistant", "content": "Go on."}, *user("And the second.")]
    items = [encode(chat, t, spans=True) for t in (talk, [{"role": "assistant", "content": "Hi"}], user("One"))]
    seen: list[torch.Tensor] = []
    with torch.no_grad(), observing(chat.layout, {AT: seen.append}) as run:
        run(input_ids=torch.tensor([items[0].ids]))
    first, _, second = items[0].turns
    own = [*range(first.start, first.stop), *range(second.start, second.stop)]
    mean = seen[0][0, own].mean(0)
    for kind in ("mean", "max_rolling_mean", "top_mean", "ema_max"):
        pooled = pooled_activations(chat, items, [AT], Aggregation(kind, "user", 1))[AT]
        torch.testing.assert_close(torch.tensor(pooled[0]), mean, atol=1e-5, rtol=1e-5)
        assert np.isnan(pooled).all(1).tolist() == [False, True, False]
    last = pooled_activations(chat, items, [AT], Aggregation("last", "user"))[AT]
    torch.testing.assert_close(torch.tensor(last[0]), seen[0][0, own[-1]], atol=1e-5, rtol=1e-5)


def test_one_pass_over_several_aggregations_gives_what_each_gives_alone() -> None:
    chat = shared_chat("llama")
    items = [encode(chat, user("stone river " * n), spans=True) for n in (5, 1, 3)]
    heads, blocks = [Site("head", 1, 3), Site("head", 1, 0), Site("residual", 2)], [Site("residual", 1), AT]
    wanted = {Aggregation("last", "prompt"): heads, Aggregation("mean", "user"): list(dict.fromkeys(blocks))}
    together = pooled_by_aggregation(chat, items, wanted)
    for aggregation, sites in wanted.items():
        alone = pooled_activations(chat, items, sites, aggregation)
        assert list(together[aggregation]) == list(sites)
        for site in sites:
            np.testing.assert_allclose(together[aggregation][site], alone[site], atol=1e-6)
            first = pooled_activations(chat, items[:1], [site], aggregation)[site]
            np.testing.assert_allclose(together[aggregation][site][:1], first, atol=1e-4)
