"""Rows go in by one statement and come out as they were, whatever the column's type."""

from __future__ import annotations

import math
import struct
from array import array
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select

from storage import schema
from storage.bulk import insert_new, insert_rows
from storage.real_arrays import LARGEST
from tests.support.rows import DAY, held, stored

KEY = {"source": "s", "partition": 0, "offset": 0, "sub": 0, "day": DAY}


def score_row(offset: int = 0, **more: Any) -> dict[str, Any]:
    probe = {"probe": "p", "probe_digest": "d", "probe_version": 1}
    return {**KEY, "offset": offset, **probe, "score": 0.5, "threshold": 1.0, "flagged": False} | more


def message_row(**more: Any) -> dict[str, Any]:
    return {**KEY, "payload_sha256": "aa", "status": "scored"} | more


def round_trip(engine: Engine, table: Any, row: dict[str, Any]) -> dict[str, Any]:
    with engine.begin() as connection:
        connection.execute(delete(table))
        assert insert_rows(connection, table, [row]) == 1
        return dict(connection.execute(select(table)).mappings().one())


@settings(max_examples=200)
@given(value=st.floats())
@example(value=math.nan)
@example(value=math.inf)
@example(value=-math.inf)
@example(value=5e-324)
@example(value=-0.0)
def test_scores_keep_every_bit(module_engine: Engine, value: float) -> None:
    back = round_trip(module_engine, schema.scores, score_row(score=value))["score"]
    assert struct.pack("d", back) == struct.pack("d", value) or (math.isnan(back) and math.isnan(value))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sent_at", datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=UTC)),
        ("sent_at", datetime(1, 1, 2, tzinfo=UTC)),
        ("sent_at", datetime(9999, 12, 30, tzinfo=UTC)),
        ("sent_at", datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=-5, minutes=-30)))),
        ("day", date(1, 1, 1)),
        ("day", date(9999, 12, 31)),
        ("offset", 2**63 - 1),
        ("offset", -(2**63)),
        ("source", 'it\'s "a" \\ \n\t{},[]: $1 %s :rows \u2028 \U0001f600'),
        ("tenant", ""),
        ("tenant", "null"),
        ("tokens", 0),
        ("text", {"a": [1, 0.1, -1e-7, True, None, 10**40, {"b": "\\u0041"}], "ä": "\u20ac"}),
        ("attributes", {}),
        ("text", None),
        ("reason", None),
    ],
)
def test_values_come_back_as_they_were(module_engine: Engine, column: str, value: Any) -> None:
    assert round_trip(module_engine, schema.messages, message_row(**{column: value}))[column] == value


@settings(max_examples=50)
@given(values=st.lists(st.none() | st.floats(allow_nan=False), max_size=5))
@example(values=[None, math.inf, -math.inf, 0.1, 5e-324])
def test_lists_of_numbers_keep_every_number_and_every_gap(module_engine: Engine, values: list[float | None]) -> None:
    assert round_trip(module_engine, schema.scores, score_row(turn_scores=values))["turn_scores"] == values


def test_a_number_that_is_none_within_a_list(engine: Engine) -> None:
    (back,) = round_trip(engine, schema.scores, score_row(turn_scores=[math.nan]))["turn_scores"]
    assert math.isnan(back)


def head_row(offset: int = 0, **more: Any) -> dict[str, Any]:
    return {**KEY, "offset": offset, "probe": "p", "probe_digest": "d", "layout": 1, "scores": [0.5]} | more


@settings(max_examples=50)
@given(values=st.lists(st.floats(width=32, allow_nan=False), max_size=5))
@example(values=[])
@example(values=[math.inf, -math.inf, -0.0, 1e-45, LARGEST, -LARGEST])
@example(values=[0.1] * 3000)
def test_arrays_of_reals_keep_every_number(module_engine: Engine, values: list[float]) -> None:
    back = round_trip(module_engine, schema.head_scores, head_row(scores=values))["scores"]
    assert array("f", back) == array("f", values)


def test_what_a_real_cannot_hold_is_rounded_to_what_it_can(engine: Engine) -> None:
    given = [1e39, -1e300, 1e-300, math.nan, math.inf, 1 / 3]
    (largest, least, none, nan, infinite, third) = round_trip(engine, schema.head_scores, head_row(scores=given))[
        "scores"
    ]
    assert (largest, least, none, infinite) == (pytest.approx(LARGEST), pytest.approx(-LARGEST), 0, math.inf)
    assert math.isnan(nan)
    assert third == pytest.approx(1 / 3, rel=1e-7)


def test_each_row_gets_its_own_array_whatever_the_order(engine: Engine) -> None:
    rows = [head_row(n, scores=[n + i / 8 for i in range(n)]) for n in (3, 0, 7, 1, 2)]
    with engine.begin() as connection:
        assert insert_rows(connection, schema.head_scores, rows) == 5
        assert insert_rows(connection, schema.head_scores, [head_row(7, scores=[1.0])]) == 0
    assert {r["offset"]: r["scores"] for r in stored(engine, schema.head_scores)} == {
        r["offset"]: r["scores"] for r in rows
    }
    with engine.begin() as connection, pytest.raises(Exception, match='null value in column "scores"'):
        insert_rows(connection, schema.head_scores, [head_row(9, scores=None)])


def test_nothing_is_inserted_for_no_rows(engine: Engine) -> None:
    with engine.begin() as connection:
        assert insert_rows(connection, schema.scores, []) == 0
        assert insert_new(connection, schema.scores, [], ("offset",)) == ()


def test_what_is_new_is_told(engine: Engine) -> None:
    with engine.begin() as connection:
        insert_rows(connection, schema.scores, [score_row(1)])
        new = insert_new(connection, schema.scores, [score_row(2), score_row(1), score_row(0)], ("offset", "probe"))
        assert [tuple(r) for r in new] == [(0, "p"), (2, "p")]
        assert insert_rows(connection, schema.scores, [score_row(n) for n in range(5)]) == 2
    assert held(engine, "scores") == {"scores_default": 5}


def test_defaults_of_the_server_are_left_to_it(engine: Engine) -> None:
    row = round_trip(engine, schema.scores, score_row())
    assert abs(row["created_at"] - datetime.now(UTC)) < timedelta(hours=1)


def test_a_missing_value_is_refused_by_name(engine: Engine) -> None:
    row = {name: value for name, value in score_row().items() if name != "threshold"}
    with engine.begin() as connection, pytest.raises(Exception, match='null value in column "threshold"'):
        insert_rows(connection, schema.scores, [row])
