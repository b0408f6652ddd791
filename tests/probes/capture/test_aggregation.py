"""Aggregations against slow plain-Python references, row by row, so that padding cannot leak into them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.capture.aggregation import SPANS, Aggregation, Kind, compacted, parse_aggregation
from probes.errors import ProbesError

# Kind, parameter, top.
How = tuple[Kind, float, int]
# A row: its values, each with the turn of the span that it is of (None: outside).
Parts = list[tuple[float, int | None]]
numbers = st.floats(-100, 100, width=32)


@st.composite
def rows(draw: st.DrawFn) -> list[Parts]:
    """Rows of one batch, right-padded to one width: turns of the span with other tokens before, between and after."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        row: Parts = [(x, None) for x in draw(st.lists(numbers, max_size=3))]
        for turn in draw(st.lists(st.integers(0, 4), max_size=4, unique=True).map(sorted)):
            row += [(x, turn) for x in draw(st.lists(numbers, min_size=1, max_size=8))]
            row += [(x, None) for x in draw(st.lists(numbers, max_size=2))]
        made.append(row)
    return made if any(made) else [[(1.0, None)]]


def as_batch(made: list[Parts], padding: float) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, made))
    values = [[x for x, _ in row] + [padding] * (width - len(row)) for row in made]
    spans = [[turn is not None for _, turn in row] + [False] * (width - len(row)) for row in made]
    return torch.tensor(values).unsqueeze(2), torch.tensor(spans)


def turns_of(made: list[Parts]) -> torch.Tensor:
    width = max(map(len, made))
    return torch.tensor([[-1 if turn is None else turn for _, turn in row] + [-1] * (width - len(row)) for row in made])


def inside(row: Parts) -> list[float]:
    return [x for x, turn in row if turn is not None]


def windows(kind: Kind, parameter: float, x: list[float]) -> list[tuple[int, float]]:
    """The place at which each window ends, and its value."""
    if kind != "ema_max":
        w = min(int(parameter), len(x))
        return [(i + w - 1, math.fsum(x[i : i + w]) / w) for i in range(len(x) - w + 1)] if x else []
    made, average = [], math.nan
    for i, value in enumerate(x):
        average = value if i == 0 else parameter * value + (1 - parameter) * average
        made.append((i, average))
    return made


def slow(how: How, x: list[float]) -> float:
    kind, parameter, top = how
    if not x:
        return math.nan
    if kind == "last":
        return x[-1]
    if kind == "mean":
        return math.fsum(x) / len(x)
    highest = sorted((value for _, value in windows(kind, parameter, x)), reverse=True)[:top]
    return math.fsum(highest) / len(highest)


KINDS = st.one_of(
    st.just(("last", 0.0, 1)),
    st.just(("mean", 0.0, 1)),
    st.tuples(st.just("max_rolling_mean"), st.integers(1, 15), st.just(1)),
    st.tuples(st.just("top_mean"), st.integers(1, 15), st.integers(1, 9)),
    st.tuples(st.just("ema_max"), st.floats(0.01, 1), st.just(1)),
)
ALL: list[How] = [
    *(("last", 0.0, 1), ("mean", 0.0, 1), ("max_rolling_mean", 3, 1), ("top_mean", 2, 2), ("ema_max", 0.3, 1))
]
MAXIMA = KINDS.filter(lambda how: how[0] not in ("last", "mean"))


def aggregation(how: How) -> Aggregation:
    return Aggregation(how[0], "user", how[1], how[2])


@given(rows(), KINDS, st.sampled_from([0.0, 1e4, -1e4, math.inf, -math.inf, math.nan]))
def test_equals_the_slow_reference_whatever_the_padding_holds(made: list[Parts], how: How, padding: float) -> None:
    got = aggregation(how)(*as_batch(made, padding))
    wanted = torch.tensor([[slow(how, inside(row))] for row in made])
    torch.testing.assert_close(got, wanted, atol=2e-4, rtol=1e-5, equal_nan=True)


@given(rows(), KINDS)
def test_a_row_alone_and_the_same_row_among_mates_agree(made: list[Parts], how: How) -> None:
    together = aggregation(how)(*as_batch(made, 7.0))
    for row, score in zip(made, together, strict=True):
        if row:
            alone = aggregation(how)(*as_batch([row], 7.0))[0]
            torch.testing.assert_close(alone, score, atol=2e-4, rtol=1e-5, equal_nan=True)


@given(rows(), MAXIMA, st.lists(st.tuples(numbers, st.sampled_from([None, 5, 6])), max_size=8))
def test_what_follows_never_lowers_a_maximum(made: list[Parts], how: How, suffix: Parts) -> None:
    """In a causal model tokens behind the span leave its values as they were: more of the turn, or another turn."""
    whole = {"max_rolling_mean": how[1], "top_mean": how[1] + how[2] - 1, "ema_max": 1}[how[0]]
    for row in made:
        if row and len(inside(row)) >= whole:
            before, after = (float(aggregation(how)(*as_batch([x], 0.0))) for x in (row, row + suffix))
            assert after >= before - 1e-4


@given(rows(), KINDS, st.sampled_from([0.0, math.inf, math.nan]))
def test_each_turn_gives_the_windows_that_end_in_it(made: list[Parts], how: How, padding: float) -> None:
    values, span = as_batch(made, padding)
    got, there = aggregation(how).by_turn(values, span, turns_of(made))
    for r, row in enumerate(made):
        turns = [turn for _, turn in row if turn is not None]
        wanted: dict[int, float] = {}
        if how[0] in ("last", "mean"):
            wanted = {t: slow(how, [x for x, turn in row if turn == t]) for t in turns}
        else:
            for end, value in windows(how[0], how[1], inside(row)):
                wanted[turns[end]] = max(value, wanted.get(turns[end], -math.inf))
        found = {t: float(got[r, t, 0]) for t in range(got.shape[1]) if there[r, t]}
        assert found.keys() == wanted.keys()
        assert found == pytest.approx(wanted, abs=2e-4, rel=1e-5)
        if how[0] in ("max_rolling_mean", "ema_max") and wanted:
            total = float(aggregation(how)(values, span)[r, 0])
            assert max(found.values()) == pytest.approx(total, abs=1e-5, rel=1e-5)


def test_turns_are_read_by_column() -> None:
    values = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(1))
    span = torch.tensor([[True] * 9, [True] * 4 + [False] * 5])
    turn = torch.tensor([[0, 0, 0, -1, 2, 2, 2, 2, -1], [1, 1, 1, 1, -1, -1, -1, -1, -1]])
    for how in ALL:
        whole, there = aggregation(how).by_turn(values, span, turn)
        ones = [aggregation(how).by_turn(values[:, :, c : c + 1], span, turn)[0] for c in range(3)]
        torch.testing.assert_close(whole, torch.cat(ones, 2))
        assert there.tolist() == [[True, False, True], [False, True, False]]


@given(rows())
def test_compacted_is_the_span_from_the_left(made: list[Parts]) -> None:
    values, span = as_batch(made, math.nan)
    for row, packed in zip(made, compacted(values, span)[:, :, 0].tolist(), strict=True):
        wanted = inside(row)
        assert packed == pytest.approx(wanted + [0.0] * (len(packed) - len(wanted)))


@given(st.lists(numbers, min_size=1, max_size=200), st.floats(0.001, 1))
def test_the_exponential_average_is_that_of_a_loop(x: list[float], alpha: float) -> None:
    span = torch.ones(1, len(x), dtype=torch.bool)
    values = torch.tensor(x).view(1, -1, 1)
    levels = Aggregation("ema_max", "prompt", alpha).levels(values, span.sum(1))[0, :, 0].tolist()
    wanted = [value for _, value in windows("ema_max", alpha, values[0, :, 0].tolist())]
    assert levels == pytest.approx(wanted, abs=1e-9, rel=1e-6)


@pytest.mark.parametrize(
    "how", [("max_rolling_mean", 2, 1), ("max_rolling_mean", 50, 1), ("ema_max", 0.5, 1), ("top_mean", 2, 9)]
)
def test_negative_values_are_not_beaten_by_the_zeros_of_padding(how: How) -> None:
    values = torch.tensor([[-3.0, -2.0, -4.0, 0.0, 0.0, 0.0]]).unsqueeze(2)
    span = torch.tensor([[True, True, True, False, False, False]])
    score = float(aggregation(how)(values, span))
    assert score == pytest.approx(slow(how, [-3.0, -2.0, -4.0]))
    assert score <= -2.5


def test_a_span_shorter_than_the_window_is_one_window() -> None:
    values = torch.tensor([[9.0, 1.0, 3.0, 9.0]]).unsqueeze(2)
    span = torch.tensor([[False, True, True, False]])
    assert float(Aggregation("max_rolling_mean", "response", 16)(values, span)) == 2.0


def test_columns_do_not_mix() -> None:
    values = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    span = torch.tensor([[True] * 7, [True] * 3 + [False] * 4, [False] * 2 + [True] * 5])
    for how in ALL:
        aggregate = aggregation(how)
        one_by_one = torch.cat([aggregate(values[:, :, c : c + 1], span) for c in range(5)], 1)
        torch.testing.assert_close(aggregate(values, span), one_by_one)


def test_an_empty_span_is_nan_and_its_mates_are_scored() -> None:
    values = torch.ones(2, 4, 1)
    span = torch.tensor([[False] * 4, [True] * 4])
    for how in ALL:
        empty, full = aggregation(how)(values, span)[:, 0].tolist()
        assert math.isnan(empty)
        assert full == 1.0


def test_a_value_that_is_not_finite_inside_the_span_shows() -> None:
    values = torch.tensor([[1.0, math.nan, 1.0]]).unsqueeze(2)
    span = torch.ones(1, 3, dtype=torch.bool)
    for how in ALL[1:]:
        assert math.isnan(float(aggregation(how)(values, span)))


def test_half_precision_values_are_averaged_in_float32() -> None:
    values = torch.full((1, 4096, 1), 100.0, dtype=torch.float16)
    score = Aggregation("mean", "prompt")(values, torch.ones(1, 4096, dtype=torch.bool))
    assert score.dtype == torch.float32
    assert float(score) == 100.0


spans = st.sampled_from(SPANS)


@given(
    st.one_of(
        st.builds(Aggregation, st.sampled_from(["last", "mean"]), spans),
        st.builds(Aggregation, st.just("max_rolling_mean"), spans, st.integers(1, 10**7)),
        st.builds(Aggregation, st.just("top_mean"), spans, st.integers(1, 10**7), st.integers(1, 99)),
        st.builds(Aggregation, st.just("ema_max"), spans, st.floats(0, 1, exclude_min=True, allow_subnormal=False)),
    )
)
def test_what_is_written_to_a_card_reads_back_the_same(aggregation: Aggregation) -> None:
    assert parse_aggregation(str(aggregation)) == aggregation


def test_the_written_forms() -> None:
    assert str(Aggregation("last", "response")) == "last_response"
    assert str(Aggregation("mean", "prompt")) == "mean(prompt)"
    assert str(Aggregation("last", "user")) == "last(user)"
    assert parse_aggregation("last(prompt)") == parse_aggregation("last_prompt")
    assert str(parse_aggregation("top_mean( 3,8, last_user )")) == "top_mean(3, 8, last_user)"
    assert str(parse_aggregation("max_rolling_mean(16,response)")) == "max_rolling_mean(16, response)"
    assert str(parse_aggregation("ema_max( 0.10, prompt )")) == "ema_max(0.1, prompt)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "last",
        "mean",
        "mean(3, prompt)",
        "last()",
        "last(answer)",
        "last_user",
        "mean(assistant)",
        "top_mean(3, prompt)",
        "top_mean(0, 3, prompt)",
        "top_mean(3, 0, prompt)",
        "top_mean(1, 2, 3, prompt)",
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
