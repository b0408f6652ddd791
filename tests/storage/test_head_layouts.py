"""Which heads an array is of is stored once, under a number that every process makes the same."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from functools import partial

from sqlalchemy import Engine, text

from storage import schema
from storage.coordinates import Coordinates
from storage.head_layouts import layout_id, store
from storage.queries.messages import message_detail
from storage.writer import BatchRows
from tests.support import ROOT
from tests.support.at_once import at_once
from tests.support.rows import at, heads_of, message, score, stored, write


def test_the_number_is_that_of_the_heads_in_their_order() -> None:
    # Stored rows have it: it must never change.
    assert layout_id((1,), (2,)) == 8623321932560431586
    others = (((1, 2), (3, 4)), ((2, 1), (4, 3)), ((1, 23), (3, 4)), ((12, 3), (3, 4)), ((1,), (3,)))
    assert len({layout_id(*each) for each in others}) == len(others)


def test_a_layout_is_stored_once_however_many_messages_have_it(engine: Engine) -> None:
    several = ((3, 1, 0.75), (1, 0, -0.5), (1, 1, 0.125))
    for first in (0, 5):
        scores = [score(first + n, heads=several if n % 2 else several[:1]) for n in range(4)]
        write(engine, BatchRows([message(first + n) for n in range(4)], scores))
    layouts = {r["id"]: (r["layers"], r["heads"]) for r in stored(engine, schema.head_layouts)}
    assert layouts == {
        layout_id((3, 1, 1), (1, 0, 1)): ([3, 1, 1], [1, 0, 1]),
        layout_id((3,), (1,)): ([3], [1]),
    }
    with engine.connect() as connection:
        detail = message_detail(connection, at(6))
    assert detail is not None
    # In the order of the heads, whatever that of the card.
    assert [(r["layer"], r["head"], r["score"]) for r in detail.heads] == [(1, 0, -0.5), (1, 1, 0.125), (3, 1, 0.75)]


def test_a_layout_that_was_lost_is_written_again(engine: Engine) -> None:
    write(engine, BatchRows([message(0)], [score(0, heads=((1, 2, 0.5),))]))
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE head_layouts"))
    write(engine, BatchRows([message(1)], [score(1, heads=((1, 2, 0.25),))]))
    assert [r["score"] for r in heads_of(engine)] == [0.5, 0.25]


def test_one_whose_transaction_ended_in_nothing_is_written_by_the_next(engine: Engine) -> None:
    with engine.connect() as connection:
        store(connection, [((1,), (2,))])
        connection.rollback()
    assert stored(engine, schema.head_layouts) == []
    with engine.begin() as connection:
        store(connection, [((1,), (2,))])
    assert len(stored(engine, schema.head_layouts)) == 1


def test_the_queries_of_the_manual_run_and_find_the_scores(engine: Engine) -> None:
    place = Coordinates("llm.traffic", 3, 1204)
    row = replace(score(0, heads=((3, 1, 0.75), (1, 0, -0.5))), at=place)
    write(engine, BatchRows([replace(message(0, day=date(2026, 11, 28)), at=place)], [row]))
    manual = (ROOT / "docs" / "find.md").read_text()
    heat_map, view = re.findall(r"```sql\n(.*?);\n```", manual, re.DOTALL)
    with engine.begin() as connection:
        assert [tuple(each) for each in connection.execute(text(heat_map))] == [(1, 0, -0.5), (3, 1, 0.75)]
        connection.execute(text(view))
        found = connection.execute(text("SELECT probe, layer, head, day, score FROM head_score_rows ORDER BY layer"))
        assert [tuple(each) for each in found] == [
            ("drift", layer, head, date(2026, 11, 28), value) for layer, head, value in ((1, 0, -0.5), (3, 1, 0.75))
        ]


def _store_some(engine: Engine) -> None:
    for n in range(20):
        with engine.begin() as connection:
            store(connection, [((n, n + 1), (0, 0)), ((n + 1, n), (0, 0)), ((n,), (1,))])


def test_workers_that_meet_a_new_layout_at_once(engine: Engine) -> None:
    assert at_once([partial(_store_some, engine)] * 3) == [None] * 3
    assert len(stored(engine, schema.head_layouts)) == 60
