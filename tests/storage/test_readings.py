"""What was read of engines: every number once, holes that late records fill, engines that end without a word."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from storage import readings, schema
from storage.readings import Gap, Published, track
from tests.support.rows import stored

GRACE = timedelta(seconds=60)
TOPIC = "awry.readings"


def published(*numbers: int, instance: str = "a", **more: Any) -> list[Published]:
    return [Published(TOPIC, instance, number, "vllm", **more) for number in numbers]


def tracked(engine: Engine, records: Sequence[Published]) -> list[bool]:
    with engine.begin() as connection:
        return track(connection, records)


def counted(engine: Engine, grace: timedelta = GRACE, *, source: str = TOPIC, holes: bool = True) -> list[Gap]:
    with engine.begin() as connection:
        return readings.count_gaps(connection, grace, [source], holes=holes)


def greeted(engine: Engine) -> None:
    with engine.begin() as connection:
        readings.seen_now(connection, [TOPIC])


def watched(engine: Engine) -> None:
    with engine.begin() as connection:
        readings.watch(connection, [TOPIC], GRACE)


def holes(engine: Engine) -> list[tuple[str, int, int, int]]:
    found = [row for row in stored(engine, schema.reading_gaps) if row["filled_at"] is None]
    return sorted((row["kind"], row["first"], row["last"], row["readings"]) for row in found)


def states(engine: Engine) -> dict[str, str]:
    return {row["instance"]: row["state"] for row in stored(engine, schema.reading_instances)}


def later(engine: Engine, seconds: float = 61) -> None:
    """As if so much time had passed."""
    with engine.begin() as connection:
        for table in ("reading_gaps", "reading_instances"):
            for column in ("first_seen_at", "last_seen_at")[: 1 if table == "reading_gaps" else 2]:
                moved = f"UPDATE {table} SET {column} = {column} - make_interval(secs => :s)"  # noqa: S608
                connection.execute(text(moved), {"s": seconds})


def test_numbers_in_order_are_no_gap(engine: Engine) -> None:
    assert tracked(engine, published(0, 1, 2)) == [False] * 3
    assert tracked(engine, published(3, 4)) == [False] * 2
    later(engine)
    assert (holes(engine), counted(engine)) == ([], [])


def test_a_hole_counts_once_and_only_when_it_is_old(engine: Engine) -> None:
    tracked(engine, published(0, 1, 5, 9))
    assert holes(engine) == [("hole", 2, 4, 3), ("hole", 6, 8, 3)]
    assert counted(engine) == []
    later(engine)
    assert counted(engine) == [Gap("hole", 3)] * 2
    assert counted(engine) == []


def test_a_late_record_fills_its_hole(engine: Engine) -> None:
    tracked(engine, published(0, 10))
    assert tracked(engine, published(4, 6, 5)) == [False] * 3
    assert holes(engine) == [("hole", 1, 3, 3), ("hole", 7, 9, 3)]
    assert tracked(engine, published(5)) == [True]
    assert tracked(engine, published(1, 2, 3, 7, 8, 9)) == [False] * 6
    assert stored(engine, schema.reading_gaps) == []
    later(engine)
    assert counted(engine) == []


def test_a_hole_that_was_counted_and_is_filled_later_stays_on_record(engine: Engine) -> None:
    tracked(engine, published(0, 2))
    later(engine)
    assert counted(engine) == [Gap("hole", 1)]
    assert tracked(engine, published(1)) == [False]
    (row,) = stored(engine, schema.reading_gaps)
    assert row["filled_at"] is not None
    assert counted(engine) == []


def test_what_is_delivered_again_is_no_repetition_and_changes_nothing(engine: Engine) -> None:
    tracked(engine, published(0, 1, 4))
    before = holes(engine)
    # At its own place it is known; from another place it is a second copy.
    assert tracked(engine, published(0, 1, 4, known=True)) == [False] * 3
    assert tracked(engine, published(0, 1, 4)) == [True] * 3
    assert tracked(engine, [*published(7), *published(7)]) == [False, True]
    assert holes(engine) == [*before, ("hole", 5, 6, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_any_order_in_any_batches(engine: Engine, seed: int) -> None:
    """Each number once, and what never came is what is missing."""
    draw = random.Random(seed)
    lost = set(draw.sample(range(1, 199), 20))
    numbers = [n for n in range(200) if n not in lost]
    sent = numbers + draw.sample(numbers, 40)
    draw.shuffle(sent)
    fresh: list[int] = []
    while sent:
        size = draw.randint(1, 30)
        batch, sent = sent[:size], sent[size:]
        again = tracked(engine, published(*batch))
        fresh += [n for n, repeated in zip(batch, again, strict=True) if not repeated]
    assert sorted(fresh) == numbers
    missing = {n for _, first, last, _ in holes(engine) for n in range(first, last + 1)}
    assert missing == lost


def test_what_an_engine_drops_is_a_gap_at_once(engine: Engine) -> None:
    tracked(engine, published(0, dropped=0) + published(1, dropped=7))
    assert counted(engine) == [Gap("dropped", 7)]
    tracked(engine, published(2, dropped=7) + published(3, dropped=9))
    tracked(engine, published(2, dropped=7, known=True))
    assert counted(engine) == [Gap("dropped", 2)]


def test_what_came_before_anybody_read_is_no_gap_and_no_repetition(engine: Engine) -> None:
    tracked(engine, published(500, instance="a"))
    tracked(engine, published(90, instance="b"))
    assert tracked(engine, published(499, instance="a")) == [False]
    later(engine)
    assert counted(engine) == []
    # Once the stream is read, an instance whose first records never came has lost them.
    tracked(engine, published(2, instance="c"))
    later(engine)
    assert counted(engine) == [Gap("hole", 2)]


def test_an_engine_that_was_killed_and_started_again(engine: Engine) -> None:
    tracked(engine, published(0, 1, instance="old"))
    later(engine, 5)
    tracked(engine, published(0, instance="new"))
    watched(engine)
    assert states(engine) == {"old": "live", "new": "live"}
    later(engine, 60)
    tracked(engine, published(1, instance="new"))
    watched(engine)
    watched(engine)
    assert states(engine) == {"old": "replaced", "new": "live"}
    assert counted(engine) == [Gap("new_instance", None)]


def test_a_killed_engine_whose_replacement_is_read_before_the_worker_is_back(engine: Engine) -> None:
    tracked(engine, published(0, instance="old"))
    later(engine, 30)
    tracked(engine, published(0, instance="new"))
    later(engine, 10)
    # The worker starts again, or is behind: all are seen at this moment, the dead one too.
    greeted(engine)
    later(engine)
    tracked(engine, published(1, instance="new"))
    watched(engine)
    watched(engine)
    assert (states(engine), counted(engine)) == (
        {"old": "replaced", "new": "live"},
        [Gap("new_instance", None)],
    )


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("b", "a")])
def test_a_killed_engine_and_its_replacement_that_are_first_read_at_once(engine: Engine, old: str, new: str) -> None:
    tracked(engine, published(0, 1, instance=old) + published(0, instance=new))
    born = {row["first_seen_at"] for row in stored(engine, schema.reading_instances)}
    assert len(born) == 1
    later(engine)
    # Where all are silent it is the stream that is.
    watched(engine)
    assert counted(engine) == []
    tracked(engine, published(1, instance=new))
    watched(engine)
    watched(engine)
    assert (states(engine), counted(engine)) == ({old: "replaced", new: "live"}, [Gap("new_instance", None)])


def test_a_rolling_update(engine: Engine) -> None:
    tracked(engine, published(0, instance="old"))
    later(engine, 30)
    tracked(engine, published(0, instance="new"))
    later(engine, 20)
    tracked(engine, published(1, instance="old"))
    for n in range(1, 4):
        later(engine, 30)
        tracked(engine, published(n, instance="new"))
        watched(engine)
    assert (states(engine), counted(engine)) == ({"old": "replaced", "new": "live"}, [Gap("new_instance", None)])


def test_an_older_engine_does_not_replace_a_younger_one(engine: Engine) -> None:
    tracked(engine, published(0, instance="old"))
    later(engine, 30)
    tracked(engine, published(0, instance="young"))
    later(engine)
    tracked(engine, published(1, instance="old"))
    watched(engine)
    assert (states(engine)["young"], counted(engine)) == ("live", [])


def test_an_engine_that_was_only_silent(engine: Engine) -> None:
    tracked(engine, published(0, instance="old"))
    later(engine)
    tracked(engine, published(0, instance="new"))
    watched(engine)
    assert counted(engine) == [Gap("new_instance", None)]
    # What is read again says nothing of it; what is new does.
    tracked(engine, published(0, instance="old", known=True))
    assert (states(engine)["old"], len(holes_of_kind(engine, "new_instance"))) == ("replaced", 1)
    tracked(engine, published(1, instance="old"))
    assert (states(engine)["old"], holes_of_kind(engine, "new_instance")) == ("live", [])


def holes_of_kind(engine: Engine, kind: str) -> list[dict[str, Any]]:
    return [row for row in stored(engine, schema.reading_gaps) if row["kind"] == kind and row["filled_at"] is None]


def test_a_worker_counts_what_it_reads_and_no_holes_while_it_is_behind(engine: Engine) -> None:
    tracked(engine, published(0) + published(4, dropped=2))
    later(engine)
    assert counted(engine, source="another") == []
    assert counted(engine, holes=False) == [Gap("dropped", 2)]
    assert counted(engine) == [Gap("hole", 3)]


def test_who_is_behind_puts_holes_off_for_all_workers(engine: Engine) -> None:
    tracked(engine, published(0, 4))
    later(engine)
    with engine.begin() as connection:
        readings.put_off(connection, [TOPIC])
    assert counted(engine) == []
    later(engine)
    with engine.begin() as connection:
        readings.put_off(connection, ["another"])
    assert counted(engine) == [Gap("hole", 3)]


def test_an_engine_that_said_that_it_ends(engine: Engine) -> None:
    tracked(engine, published(0, instance="old") + published(1, instance="old", closed=True))
    later(engine, 100)
    tracked(engine, published(0, instance="new"))
    watched(engine)
    assert (states(engine), counted(engine)) == ({"old": "closed", "new": "live"}, [])


def test_a_second_engine_beside_one_that_lives(engine: Engine) -> None:
    tracked(engine, published(0, instance="first"))
    later(engine, 100)
    tracked(engine, published(0, instance="second"))
    tracked(engine, published(1, instance="first"))
    later(engine, 70)
    watched(engine)
    # Both are silent: it is the stream.
    assert counted(engine) == []


def test_who_is_behind_judges_nobody(engine: Engine) -> None:
    tracked(engine, published(0, instance="old"))
    later(engine, 500)
    tracked(engine, published(0, instance="new"))
    greeted(engine)
    watched(engine)
    assert counted(engine) == []


def test_a_stream_that_has_ended(engine: Engine) -> None:
    tracked(engine, published(0))
    with engine.begin() as connection:
        readings.leave(connection, [TOPIC])
    assert states(engine) == {"a": "unwatched"}
    tracked(engine, published(1))
    assert states(engine) == {"a": "live"}
