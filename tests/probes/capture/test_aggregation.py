"""Aggregations against slow plain-Python references, row by row, so that padding cannot leak into them."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.capture.aggregation import Aggregation, parse_aggregation
from probes.errors import ProbesError

How = tuple[Literal["last", "mean", "max_rolling_mean", "ema_max"], float]
Parts = tuple[list[float], list[float], list[float]]
numbers = st.floats(-100, 100, width=32)


@st.composite
def rows(draw: st.DrawFn) -> list[Parts]:
    """Rows of one batch: (before the span, the span, after it), right-padded to one width."""
    lists = [st.lists(numbers, max_size=size) for size in (4, 12, 6)]
    made = [(draw(lists[0]), draw(lists[1]), draw(lists[2])) for _ in range(draw(st.integers(1, 4)))]
    return made if any(b + s + a for b, s, a in made) else [([], [1.0], [])]


def as_batch(made: list[Parts], padding: float) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(b) + len(s) + len(a) for b, s, a in made)
    values, spans = [], []
    for before, inside, after in made:
        row = before + inside + after
        values.append(row + [padding] * (width - len(row)))
        spans.append([len(before) <= i < len(before) + len(inside) for i in range(width)])
    return torch.tensor(values).unsqueeze(2), torch.tensor(spans)


def slow(kind: str, parameter: float, x: list[float]) -> float:
    if not x:
        return math.nan
    if kind == "last":
        return x[-1]
    if kind == "mean":
        return math.fsum(x) / len(x)
    if kind == "max_rolling_mean":
        w = min(int(parameter), len(x))
        return max(math.fsum(x[i : i + w]) / w for i in range(len(x) - w + 1))
    average = best = x[0]
    for value in x[1:]:
        average = parameter * value + (1 - parameter) * average
        best = max(best, average)
    return best


KINDS = st.one_of(
    st.just(("last", 0.0)),
    st.just(("mean", 0.0)),
    st.tuples(st.just("max_rolling_mean"), st.integers(1, 15)),
    st.tuples(st.just("ema_max"), st.floats(0.01, 1)),
)


@given(rows(), KINDS, st.sampled_from([0.0, 1e4, -1e4, math.inf, -math.inf, math.nan]))
def test_equals_the_slow_reference_whatever_the_padding_holds(made: list[Parts], how: How, padding: float) -> None:
    kind, parameter = how
    values, span = as_batch(made, padding)
    got = Aggregation(kind, "prompt", parameter)(values, span)
    wanted = torch.tensor([[slow(kind, parameter, inside)] for _, inside, _ in made])
    torch.testing.assert_close(got, wanted, atol=2e-4, rtol=1e-5, equal_nan=True)


@given(rows(), KINDS)
def test_a_row_alone_and_the_same_row_among_mates_agree(made: list[Parts], how: How) -> None:
    kind, parameter = how
    aggregate = Aggregation(kind, "prompt", parameter)
    together = aggregate(*as_batch(made, 7.0))
    for row, score in zip(made, together, strict=True):
        if row[0] + row[1] + row[2]:
            torch.testing.assert_close(aggregate(*as_batch([row], 7.0))[0], score, atol=2e-4, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("how", [("max_rolling_mean", 2), ("max_rolling_mean", 50), ("ema_max", 0.5)])
def test_negative_values_are_not_beaten_by_the_zeros_of_padding(how: How) -> None:
    values = torch.tensor([[-3.0, -2.0, -4.0, 0.0, 0.0, 0.0]]).unsqueeze(2)
    span = torch.tensor([[True, True, True, False, False, False]])
    score = float(Aggregation(how[0], "prompt", how[1])(values, span))
    assert score == pytest.approx(slow(how[0], how[1], [-3.0, -2.0, -4.0]))
    assert score < -2


def test_a_span_shorter_than_the_window_is_one_window() -> None:
    values = torch.tensor([[9.0, 1.0, 3.0, 9.0]]).unsqueeze(2)
    span = torch.tensor([[False, True, True, False]])
    assert float(Aggregation("max_rolling_mean", "response", 16)(values, span)) == 2.0


def test_columns_do_not_mix() -> None:
    values = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    span = torch.tensor([[True] * 7, [True] * 3 + [False] * 4, [False] * 2 + [True] * 5])
    hows: list[How] = [("last", 0.0), ("mean", 0.0), ("max_rolling_mean", 3), ("ema_max", 0.3)]
    for kind, parameter in hows:
        aggregate = Aggregation(kind, "prompt", parameter)
        one_by_one = torch.cat([aggregate(values[:, :, c : c + 1], span) for c in range(5)], 1)
        torch.testing.assert_close(aggregate(values, span), one_by_one)


def test_an_empty_span_is_nan_and_its_mates_are_scored() -> None:
    values = torch.ones(2, 4, 1)
    span = torch.tensor([[False] * 4, [True] * 4])
    hows: list[How] = [("last", 0.0), ("mean", 0.0), ("max_rolling_mean", 2), ("ema_max", 0.5)]
    for kind, parameter in hows:
        empty, full = Aggregation(kind, "response", parameter)(values, span)[:, 0].tolist()
        assert math.isnan(empty)
        assert full == 1.0


def test_a_value_that_is_not_finite_inside_the_span_shows() -> None:
    values = torch.tensor([[1.0, math.nan, 1.0]]).unsqueeze(2)
    span = torch.ones(1, 3, dtype=torch.bool)
    hows: list[How] = [("mean", 0.0), ("max_rolling_mean", 2), ("ema_max", 0.5)]
    for kind, parameter in hows:
        assert math.isnan(float(Aggregation(kind, "prompt", parameter)(values, span)))


def test_half_precision_values_are_averaged_in_float32() -> None:
    values = torch.full((1, 4096, 1), 100.0, dtype=torch.float16)
    score = Aggregation("mean", "prompt")(values, torch.ones(1, 4096, dtype=torch.bool))
    assert score.dtype == torch.float32
    assert float(score) == 100.0


@given(
    st.one_of(
        st.builds(Aggregation, st.sampled_from(["last", "mean"]), st.sampled_from(["prompt", "response"])),
        st.builds(
            Aggregation, st.just("max_rolling_mean"), st.sampled_from(["prompt", "response"]), st.integers(1, 10**7)
        ),
        st.builds(
            Aggregation,
            st.just("ema_max"),
            st.sampled_from(["prompt", "response"]),
            st.floats(0, 1, exclude_min=True, allow_subnormal=False),
        ),
    )
)
def test_what_is_written_to_a_card_reads_back_the_same(aggregation: Aggregation) -> None:
    assert parse_aggregation(str(aggregation)) == aggregation


def test_the_written_forms() -> None:
    assert str(Aggregation("last", "response")) == "last_response"
    assert str(Aggregation("mean", "prompt")) == "mean(prompt)"
    assert str(parse_aggregation("max_rolling_mean(16,response)")) == "max_rolling_mean(16, response)"
    assert str(parse_aggregation("ema_max( 0.10, prompt )")) == "ema_max(0.1, prompt)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "last",
        "mean",
        "mean(3, prompt)",
        "mean(answer)",
        "max_rolling_mean(prompt)",
        "max_rolling_mean(0, prompt)",
        "max_rolling_mean(2.5, prompt)",
        "ema_max(0, prompt)",
        "ema_max(1.1, prompt)",
        "ema_max(., prompt)",
        "ema_max(0.1.2, prompt)",
        "ema_max(0.1, prompt) x",
    ],
)
def test_what_is_no_aggregation_is_refused_with_the_allowed_forms(text: str) -> None:
    with pytest.raises(ProbesError, match=r"none of last_prompt, last_response, last\(SPAN\), mean\(SPAN\)"):
        parse_aggregation(text)
