"""Every score is in the rollups exactly once, whoever rolls up, whatever is open meanwhile."""

from __future__ import annotations

import random
from datetime import date, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text

from storage.database import connect
from storage.errors import RowRefusedError
from storage.partitions import utc_today
from storage.retention import retain
from storage.rollup import roll_up
from storage.writer import BatchRows, register_probe, write_batch
from tests.conftest import url_of
from tests.support.at_once import at_once
from tests.support.rows import digest_of, message, score, write


@pytest.fixture(autouse=True)
def _registered(engine: Engine) -> None:
    with engine.begin() as connection:
        for name in ("drift", "heads"):
            register_probe(connection, digest_of(name), name, 1, "hash", {})


def back(engine: Engine, interval: str) -> None:
    """As if all scores had been written so much earlier."""
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE scores SET created_at = created_at - interval '{interval}'"))  # noqa: S608


def ask(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def totals(engine: Engine) -> list[tuple[Any, ...]]:
    return ask(
        engine,
        "SELECT minutes, sum(n), sum(flagged), round(sum(total)::numeric, 6) FROM score_rollups GROUP BY 1 ORDER BY 1",
    )


def test_the_sums_are_those_of_the_scores(engine: Engine) -> None:
    draw = random.Random(7)
    rows = BatchRows()
    for n in range(200):
        rows.messages.append(message(n, tenant=draw.choice(["a", "b", None]), model=draw.choice(["m", None])))
        heads = ((1, 2, draw.random()), (3, 0, draw.random()))
        rows.scores += [score(n, draw.uniform(-7, 12)), score(n, draw.random(), "heads", heads=heads)]
    write(engine, rows)
    with engine.begin() as connection:
        connection.execute(
            text('UPDATE scores SET created_at = now() - make_interval(mins => ("offset" * 2)::int + 1)')
        )
    assert roll_up(engine) == 400
    by_hand = """
        SELECT date_bin(make_interval(mins => w), s.created_at, '2000-01-01'), s.probe, coalesce(m.tenant, ''),
            coalesce(m.model, ''), count(*), count(*) FILTER (WHERE s.flagged), round(sum(s.score)::numeric, 9),
            max(s.score)
        FROM scores s JOIN messages m USING (source, partition, "offset", day) CROSS JOIN (VALUES (5), (60)) v (w)
        GROUP BY w, 1, 2, 3, 4 ORDER BY w, 1, 2, 3, 4
    """
    rolled = """
        SELECT bucket, probe, tenant, model, n, flagged, round(total::numeric, 9), peak FROM score_rollups
        ORDER BY minutes, 1, 2, 3, 4
    """
    assert ask(engine, rolled) == ask(engine, by_hand)
    bins = ask(engine, "SELECT probe, bin, sum(n) FROM score_histograms GROUP BY 1, 2 ORDER BY 1, 2")
    assert bins == ask(
        engine,
        "SELECT probe, floor(10 * greatest(-5, least(9.95, score))), count(*) FROM scores GROUP BY 1, 2 ORDER BY 1, 2",
    )
    assert {b for _, b, _ in bins} >= {-50, 99}
    with_heads = [s.heads for s in rows.scores if s.heads]
    of_heads = {which: [heads[n][2] for heads in with_heads] for n, which in enumerate(((1, 2), (3, 0)))}
    assert ask(engine, "SELECT layer, head, sum(n), sum(total) FROM head_rollups GROUP BY 1, 2 ORDER BY 1") == [
        (*which, len(values), pytest.approx(sum(values))) for which, values in of_heads.items()
    ]


def test_heads_are_summed_by_head_whatever_their_order_in_the_arrays(engine: Engine) -> None:
    given = [(0.9, ((1, 2, 0.5), (3, 0, 0.25))), (0.1, ((3, 0, 1.0), (1, 2, 2.0))), (0.2, ((3, 0, 4.0),))]
    rows = [score(n, value, "heads", heads=heads) for n, (value, heads) in enumerate(given)]
    write(engine, BatchRows([message(n) for n in range(3)], rows))
    back(engine, "1 minute")
    assert roll_up(engine) == 3
    sums = "SELECT layer, head, n, total, flagged, flagged_total FROM head_rollups ORDER BY 1, 2"
    assert ask(engine, sums) == [(1, 2, 2, 2.5, 1, 0.5), (3, 0, 3, 5.25, 1, 0.25)]


def test_a_second_time_adds_nothing_and_new_scores_are_added_to_their_bucket(engine: Engine) -> None:
    write(engine, BatchRows([message(1)], [score(1, 0.9)]))
    back(engine, "1 minute")
    assert roll_up(engine) == 1
    assert roll_up(engine) == 0
    before = totals(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE rollup_state SET until = until - interval '30 seconds'"))
    write(engine, BatchRows([message(2)], [score(2, 0.1)]))
    back(engine, "15 seconds")
    assert roll_up(engine) == 1
    assert [n for _, n, _, _ in totals(engine)] == [2, 2]
    assert before[0][1] == 1


def test_tables_that_somebody_emptied_are_rolled_up_from_the_first_score(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE rollup_state"))
    write(engine, BatchRows([message(1)], [score(1, 0.9)]))
    back(engine, "1 minute")
    assert roll_up(engine) == 1
    assert roll_up(engine) == 0


def test_a_transaction_that_is_open_is_waited_for(engine: Engine) -> None:
    """Its scores will have the time at which it began: the watermark stays below."""
    other = connect(url_of(engine))
    with other.connect() as late:
        write_batch(late, BatchRows([message(1)], [score(1)]))
        began = late.execute(text("SELECT now()")).scalar_one()
        assert roll_up(engine) == 0
        ((until,),) = ask(engine, "SELECT until FROM rollup_state")
        assert until <= began
        late.commit()
    other.dispose()
    with engine.begin() as connection:
        # Ten seconds later.
        connection.execute(text("UPDATE scores SET created_at = created_at - interval '10 seconds'"))
        connection.execute(text("UPDATE rollup_state SET until = until - interval '10 seconds'"))
    assert roll_up(engine) == 1


def _roll_up_five_times(engine: Engine) -> int:
    return sum(roll_up(engine) or 0 for _ in range(5))


def test_many_at_once_count_each_score_once(engine: Engine) -> None:
    write(engine, BatchRows([message(n) for n in range(50)], [score(n) for n in range(50)]))
    with engine.begin() as connection:
        connection.execute(text('UPDATE scores SET created_at = now() - make_interval(mins => 1 + "offset"::int * 30)'))
    engines = [connect(url_of(engine)) for _ in range(4)]
    done = at_once([partial(_roll_up_five_times, own) for own in engines])
    for own in engines:
        own.dispose()
    assert [n for _, n, _, _ in totals(engine)] == [50, 50]
    assert sum(done) == 50


def card(tail: Any) -> dict[str, Any]:
    return {"calibration": {"threshold": 0.5, "tail": tail}}


def test_two_digests_of_a_name_have_sums_of_their_own(engine: Engine) -> None:
    with engine.begin() as connection:
        register_probe(connection, "d1", "drift", 1, "hash", card([[0.95, 0.2], [0.99, 0.4], [0.999, 0.6]]))
        register_probe(connection, "d2", "drift", 1, "hash", card([[0.999, 0.1]]))
    rows = BatchRows([message(n) for n in range(8)])
    # What is at a quantile is not above it.
    for n, value in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)):
        rows.scores.append(score(n, value, probe_digest="d1", heads=((1, 1, value),)))
        rows.scores.append(score(n, value, probe_digest="d2", heads=((1, 1, -1.0),)))
    rows.scores += [score(7, 0.9, probe_digest=""), score(7, 0.9, probe_digest="never-registered")]
    write(engine, rows)
    back(engine, "1 minute")
    assert roll_up(engine) == 16
    sums = ask(
        engine,
        "SELECT probe_digest, n, round(total::numeric, 6)::float8, over95, over99, over999 FROM score_rollups "
        "WHERE minutes = 60 ORDER BY 1",
    )
    assert sums == [
        ("", 1, 0.9, 0, 0, 0),
        ("d1", 7, 2.8, 5, 3, 1),
        ("d2", 7, 2.8, 0, 0, 6),
        ("never-registered", 1, 0.9, 0, 0, 0),
    ]
    assert ask(engine, "SELECT probe_digest, sum(n) FROM score_histograms GROUP BY 1 ORDER BY 1") == [
        ("", 1),
        ("d1", 7),
        ("d2", 7),
        ("never-registered", 1),
    ]
    heads = "SELECT probe_digest, round(total::numeric, 6)::float8 FROM head_rollups ORDER BY 1"
    assert ask(engine, heads) == [("d1", 2.8), ("d2", -7.0)]
    # A second time they are added.
    with engine.begin() as connection:
        connection.execute(text("UPDATE rollup_state SET until = until - interval '30 seconds'"))
    write(engine, BatchRows([message(9)], [score(9, 0.5, probe_digest="d1")]))
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET created_at = now() - interval '15 seconds' WHERE \"offset\" = 9"))
    assert roll_up(engine) == 1
    over = "SELECT sum(over95), sum(over99), sum(over999) FROM score_rollups WHERE minutes = 60 AND probe_digest = 'd1'"
    assert ask(engine, over) == [(6, 4, 1)]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"calibration": None},
        {"calibration": []},
        card(None),
        card("high"),
        card({"0.95": 0.1}),
        card([]),
        card([0.95, 0.1]),
        card([[0.95]]),
        card([[0.95, "0.1"], [0.99, None], [0.999, [0.1]]]),
        card([["0.95", 0.1]]),
    ],
)
def test_a_card_without_a_tail_counts_nothing_above_it(engine: Engine, odd: Any) -> None:
    with engine.begin() as connection:
        register_probe(connection, "odd", "drift", 1, "hash", odd)
    write(engine, BatchRows([message(1)], [score(1, probe_digest="odd")]))
    back(engine, "1 minute")
    assert roll_up(engine) == 1
    assert ask(engine, "SELECT DISTINCT n, over95, over99, over999 FROM score_rollups") == [(1, 0, 0, 0)]


def test_a_probe_that_nobody_registered_and_a_message_under_another_payload(engine: Engine) -> None:
    write(engine, BatchRows([message(1, tenant="a")], [score(1), score(1, probe="stranger")]))
    write(engine, BatchRows([message(1, sha256="other", tenant="b")]))
    back(engine, "1 minute")
    assert roll_up(engine) == 1
    assert ask(engine, "SELECT DISTINCT probe, tenant, n FROM score_rollups") == [("drift", "a", 1)]


def test_retention_takes_the_rollups_with_the_scores(engine: Engine) -> None:
    old: date = utc_today() - timedelta(days=9)
    write(engine, BatchRows([message(1, day=old)], [score(1)]))
    write(engine, BatchRows([message(2, day=utc_today())], [score(2)]))
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET created_at = now() - interval '9 days' WHERE \"offset\" = 1"))
        connection.execute(text("UPDATE scores SET created_at = now() - interval '1 minute' WHERE \"offset\" = 2"))
    assert roll_up(engine) == 2
    dropped = retain(engine, 3)
    assert dropped.rows["score_rollups"] == 2
    assert [n for _, n, _, _ in totals(engine)] == [1, 1]


def test_the_longest_names_stop_nobody(engine: Engine) -> None:
    """Two names of 512 characters of four bytes would be more than one row of an index holds."""
    long = "\U0001f600" * 512
    rows = [message(0, tenant=long, model=long, user_id=long, conversation_id=long, message_id=long)]
    write(engine, BatchRows([*rows, message(1, tenant="shop")], [score(0, 0.9), score(1, 0.1)]))
    back(engine, "1 minute")
    assert roll_up(engine) == 2
    found = ask(engine, "SELECT DISTINCT tenant, model, n FROM score_rollups WHERE minutes = 5 ORDER BY tenant")
    assert found == [("shop", "", 1), (long[:250], long[:250], 1)]


def test_scores_that_cannot_be_added_up_leave_out_their_message_alone(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Two numbers whose sum no number can hold, in a transaction with others, and others before and after it."""
    write(engine, BatchRows([message(0)], [score(0)]))
    huge = [score(n, 1.5e308) for n in (1, 2)]
    write(engine, BatchRows([message(n) for n in range(1, 5)], [*huge, score(3), score(4)]))
    write(engine, BatchRows([message(5)], [score(5)]))
    back(engine, "1 hour")
    with caplog.at_level("WARNING", "awry"):
        assert roll_up(engine) == 5
    assert totals(engine)[0][:2] == (5, 5)
    (said,) = [line for line in caplog.messages if line.startswith("dashboards")]
    assert said.startswith("dashboards: the scores of topic")
    assert "SQLSTATE 22003" in said
    assert roll_up(engine) == 0


def test_a_database_that_refuses_all_rollups_is_no_matter_of_single_messages(engine: Engine) -> None:
    for n in range(30):
        write(engine, BatchRows([message(n)], [score(n)]))
    back(engine, "1 hour")
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE score_rollups ADD CONSTRAINT owners_check CHECK (n < 0)"))
    with pytest.raises(RowRefusedError, match=r"owners_check.* too many others"):
        roll_up(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE score_rollups DROP CONSTRAINT owners_check"))
        connection.execute(text("TRUNCATE score_rollups, score_histograms, head_rollups, rollup_state"))
    assert roll_up(engine) == 30
