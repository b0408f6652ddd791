"""The one writer: idempotent on coordinates, other payloads are visible, days never change, any text goes in."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select

from storage import schema
from storage.coordinates import Coordinates, clean
from storage.known import ScoredBy
from storage.queries.messages import already_scored, scored_messages, status_counts, stored_answers
from storage.sources import CONFLICT
from storage.writer import AnswerRow, BatchRows, MessageRow, WindowRow, register_probe
from tests.support.rows import DAY, at, counts, digest_of, message, score, stored, write

DRIFT = ScoredBy("drift", digest_of("drift"))


def batch(n: int = 3) -> BatchRows:
    return BatchRows(
        [message(i, f"sha{i}", message_id=f"m{i}", tenant="shop", tokens=7) for i in range(n)],
        [score(i, heads=((2, 1, 0.25), (2, 3, -0.5))) for i in range(n)],
        [AnswerRow(at(i), "mitigated", 5, "recipe", "better", "hash") for i in range(n)],
    )


def test_a_batch_is_written_whole(engine: Engine) -> None:
    written = write(engine, batch())
    assert (written.messages, written.conflicts, len(written.scores)) == (3, frozenset(), 3)
    assert counts(engine) == {"messages": 3, "scores": 3, "head_scores": 3, "answers": 3, "alerts": 0, "outbox": 0}
    row = stored(engine, schema.messages)[1]
    assert (row["message_id"], row["tenant"], row["status"], row["tokens"], row["day"]) == (
        "m1",
        "shop",
        "scored",
        7,
        DAY,
    )
    assert [r["scores"] for r in stored(engine, schema.head_scores)] == [[0.25, -0.5]] * 3
    assert [(r["layers"], r["heads"]) for r in stored(engine, schema.head_layouts)] == [([2, 2], [1, 3])]


def test_an_empty_batch(engine: Engine) -> None:
    assert write(engine, BatchRows()).messages == 0


def test_the_same_batch_twice_adds_nothing(engine: Engine) -> None:
    write(engine, batch())
    before, rows = counts(engine), stored(engine, schema.messages)
    again = write(engine, batch())
    assert (again.messages, again.conflicts, again.scores) == (0, frozenset(), ())
    assert counts(engine) == before
    assert stored(engine, schema.messages) == rows


def test_redelivery_of_a_part_adds_the_rest(engine: Engine) -> None:
    write(engine, batch(2))
    again = write(engine, batch(5))
    assert again.messages == 3
    assert [s.at.offset for s in again.scores] == [2, 3, 4]
    assert counts(engine)["scores"] == 5


def test_a_message_twice_within_a_batch_counts_once(engine: Engine) -> None:
    one = batch(1)
    written = write(engine, BatchRows(one.messages * 2, one.scores * 2, one.answers * 2))
    assert (written.messages, len(written.scores)) == (1, 1)
    assert counts(engine)["messages"] == 1


def test_another_probe_on_known_messages_adds_only_its_scores(engine: Engine) -> None:
    write(engine, batch(2))
    more = BatchRows(batch(2).messages, [*batch(2).scores, score(0, probe="other"), score(1, probe="other")])
    assert [s.probe for s in write(engine, more).scores] == ["other", "other"]
    assert counts(engine)["messages"] == 2


def test_another_payload_at_known_coordinates_is_a_failed_row_without_a_score(engine: Engine) -> None:
    write(engine, batch(1))
    other = BatchRows([message(0, "other", message_id="new")], [score(0, 3.0, probe="second")], batch(1).answers)
    first = write(engine, other)
    assert first.conflicts == {at(0)}
    assert first.scores == ()
    rows = {r["payload_sha256"]: r for r in stored(engine, schema.messages)}
    assert (rows["sha0"]["status"], rows["other"]["status"], rows["other"]["reason"]) == ("scored", "failed", CONFLICT)
    after = counts(engine)
    assert after["scores"] == 1
    again = write(engine, other)
    assert (again.messages, again.conflicts, again.scores) == (0, frozenset({at(0)}), ())
    assert counts(engine) == after


def test_the_first_payload_stays_first_after_a_conflict(engine: Engine) -> None:
    """The conflicting row must not become the known one: the first payload still gets scores of new probes."""
    write(engine, batch(1))
    # One sorts before the first payload's hash, one after it.
    write(engine, BatchRows([message(0, "other"), message(0, "zz")]))
    again = write(engine, BatchRows(batch(1).messages, [score(0, probe="second")]))
    assert again.conflicts == frozenset()
    assert [s.probe for s in again.scores] == ["second"]


def test_a_conflict_leaves_its_batch_mates_alone(engine: Engine) -> None:
    write(engine, batch(1))
    mixed = batch(3)
    mixed.messages[0] = message(0, "other")
    written = write(engine, mixed)
    assert written.conflicts == {at(0)}
    assert [s.at.offset for s in written.scores] == [1, 2]


def test_a_failed_message_that_is_scored_later_is_mended(engine: Engine) -> None:
    write(engine, BatchRows([message(0, status="failed", reason="scoring failed: RuntimeError", message_id="m")]))
    written = write(engine, BatchRows([message(0, tokens=9, message_id="m")], [score(0)]))
    assert written.messages == 1
    (row,) = stored(engine, schema.messages)
    assert (row["status"], row["reason"], row["tokens"]) == ("scored", None, 9)
    assert counts(engine)["scores"] == 1


@pytest.mark.parametrize("later", ["failed", "skipped", "invalid"])
def test_a_scored_message_stays_scored(engine: Engine, later: str) -> None:
    write(engine, BatchRows([message(0, tokens=9)], [score(0)]))
    assert write(engine, BatchRows([message(0, status=later, reason="later")])).messages == 0
    (row,) = stored(engine, schema.messages)
    assert (row["status"], row["reason"]) == ("scored", None)


def test_the_day_never_changes(engine: Engine) -> None:
    """Redelivered on another day, with another probe and other content: the first ingest's day everywhere."""
    write(engine, batch(1))
    tomorrow = DAY + timedelta(days=1)
    later = BatchRows(
        [replace(batch(1).messages[0], day=tomorrow)],
        [score(0, probe="second", heads=((1, 1, 0.0),))],
        [AnswerRow(at(0), "plain", 1)],
    )
    write(engine, later)
    write(engine, BatchRows([message(0, "other", day=tomorrow)]))
    for table in (schema.messages, schema.scores, schema.head_scores, schema.answers):
        assert {r["day"] for r in stored(engine, table)} == {DAY}, table.name


def test_partitions_and_sources_are_apart(engine: Engine) -> None:
    places = [Coordinates("a", 0, 1), Coordinates("a", 1, 1), Coordinates("b", 0, 1), Coordinates("a", 0, 2**40)]
    assert write(engine, BatchRows([MessageRow(p, "x", DAY, "scored") for p in places])).messages == 4


def test_a_status_that_is_none_is_refused(engine: Engine) -> None:
    with pytest.raises(Exception, match="ck_messages_status") as found:
        write(engine, BatchRows([message(0, status="sent", message_id="CANARY-11")]))
    assert "[parameters:" not in str(found.value)


# Text that PostgreSQL cannot hold is as likely as any other.
odd = st.text(st.characters(codec=None) | st.sampled_from("\x00\ud800\udfff\u2400\U0001f600"), max_size=40)
leaves = odd | st.integers(-(10**30), 10**30) | st.sampled_from([True, None, 0.5, -1e-7])
values = leaves | st.lists(leaves, max_size=3) | st.dictionaries(odd, leaves, max_size=3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(odd, min_size=8, max_size=8), free=st.dictionaries(odd, values, max_size=4))
@example(texts=["\x00\ud800"] * 8, free={"\x00": ["\udc00", {"\ud800": "\x00"}]})
@example(texts=["\ud83d\ude00"] * 8, free={"a": "\ud83d\ude00"})
def test_any_text_goes_into_every_text_column(module_engine: Engine, texts: list[str], free: dict[str, Any]) -> None:
    source, reason, message_id, tenant, user, model, conversation, answer = texts
    place = Coordinates("fuzz" + source, 0, 1)
    batch = BatchRows(
        [
            MessageRow(
                place,
                "sha",
                DAY,
                "scored",
                reason,
                message_id,
                tenant,
                user,
                model,
                conversation,
                text={"messages": [{"role": "user", "content": tenant}]},
                attributes=free,
            )
        ],
        [replace(score(0), at=place)],
        [AnswerRow(place, "plain", 1, text=answer)],
    )
    with module_engine.begin() as connection:
        for table in (schema.answers, schema.scores, schema.messages):
            connection.execute(delete(table).where(table.c.source == place.source))
    assert write(module_engine, batch).messages == 1
    again = write(module_engine, batch)
    assert (again.messages, again.conflicts, again.scores) == (0, frozenset(), ())
    with module_engine.connect() as connection:
        row = connection.execute(select(schema.messages).where(schema.messages.c.source == place.source)).one()
        answers = stored_answers(connection, place.source, "plain")
        assert already_scored(connection, [(place, "sha")], [DRIFT]) == {(place, "sha")}
    got = (row.reason, row.message_id, row.tenant, row.user_id, row.model, row.conversation_id)
    assert got == tuple(map(clean, texts[1:7]))
    assert row.text == {"messages": [{"role": "user", "content": clean(tenant)}]}
    assert row.attributes == json.loads(json.dumps(clean(free)))
    assert answers == {place: clean(answer)}


@given(odd)
@example("\ud83d\ude00")
def test_cleaning_changes_only_what_postgresql_cannot_hold(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert "\x00" not in cleaned
    assert clean(cleaned) == cleaned
    if "\x00" not in text and not any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        assert cleaned == text


def test_cleaning_says_what_was_there() -> None:
    assert clean("a\x00b") == "a\u2400b"
    assert clean("a\ud800b") == "a\ufffdb"
    assert clean({"\x00": ["\x00", 1, None]}) == {"\u2400": ["\u2400", 1, None]}


def test_what_is_known_already(engine: Engine) -> None:
    rows = [message(0), message(1, status="skipped"), message(2, status="invalid"), message(3, status="failed")]
    write(engine, BatchRows([*rows, message(4)], [score(0), score(0, probe="second"), score(4)]))
    places = [(at(i), "aa") for i in range(6)] + [(at(0), "other")]
    with engine.connect() as connection:
        one = already_scored(connection, places, [DRIFT])
        two = already_scored(connection, places, [DRIFT, ScoredBy("second", digest_of("second"))])
        assert already_scored(connection, [], [DRIFT]) == set()
    assert {p.offset for p, _ in one} == {0, 1, 2, 4}
    assert (at(0), "other") not in one
    assert {p.offset for p, _ in two} == {0, 1, 2}


def test_a_conflicting_row_does_not_show_as_scored(engine: Engine) -> None:
    write(engine, batch(1))
    write(engine, BatchRows([message(0, "other", message_id="new")]))
    with engine.connect() as connection:
        (found,) = scored_messages(connection, "drift")
        assert found.message_id == "m0"
        assert status_counts(connection) == {"scored": 1, "failed": 1}
        assert status_counts(connection, "elsewhere") == {}


def test_a_probe_is_registered_once_by_its_digest(engine: Engine) -> None:
    with engine.begin() as connection:
        register_probe(connection, "a1", "drift", 1, "first", {"a": 1})
        register_probe(connection, "a1", "drift", 1, "first", {"a": 1, "created": "later"})
        # The same name and version over another card.
        register_probe(connection, "b2", "drift", 1, "second", {"a": 2})
        register_probe(connection, "c3", "drift", 2, "third", {"a": 3})
    rows = [(r["digest"], r["version"], r["safetensors_sha256"], r["card"]) for r in stored(engine, schema.probes)]
    assert rows == [("a1", 1, "first", {"a": 1}), ("b2", 1, "second", {"a": 2}), ("c3", 2, "third", {"a": 3})]


def test_two_versions_of_a_probe_score_the_same_message(engine: Engine) -> None:
    first = score(0, 0.9, probe_digest="d1", heads=((1, 1, 0.5),))
    second = replace(first, probe_digest="d2", probe_version=2, score=0.1, heads=((1, 1, 0.25),))
    windows = [WindowRow(at(0), "drift", 0, 0, 9, 0.5, row.probe_digest) for row in (first, second)]
    assert write(engine, BatchRows([message(0)], [first], windows=windows[:1])).scores == (first,)
    assert write(engine, BatchRows([message(0)], [first, second], windows=windows)).scores == (second,)
    assert [(r["probe_digest"], r["probe_version"], r["score"]) for r in stored(engine, schema.scores)] == [
        ("d1", 1, 0.9),
        ("d2", 2, 0.1),
    ]
    heads = [(r["probe_digest"], r["scores"]) for r in stored(engine, schema.head_scores)]
    assert heads == [("d1", [0.5]), ("d2", [0.25])]
    assert [r["probe_digest"] for r in stored(engine, schema.window_scores)] == ["d1", "d2"]


def test_a_score_of_before_digests_is_not_counted_again(engine: Engine) -> None:
    """An alert counts each score once: the upgrade must not make a known one new."""
    write(engine, BatchRows([message(0), message(1)], [score(0, probe_digest="")]))
    known, other = score(0, probe_digest="d1"), score(0, probe_digest="e", probe="second")
    later = replace(known, probe_version=2, probe_digest="d2")
    assert write(engine, BatchRows([message(0)], [known, other])).scores == (other,)
    assert write(engine, BatchRows([message(0)], [known, other, later])).scores == (later,)
    # A message that had no score then, and a replay, which opens no alert.
    fresh = score(1, probe_digest="d1")
    assert write(engine, BatchRows([message(1)], [fresh])).scores == (fresh,)
    replayed = replace(known, shadow=True)
    assert write(engine, BatchRows([message(0)], [replayed])).scores == (replayed,)


def test_what_is_known_of_a_conversation_and_of_readings_is_stored(engine: Engine) -> None:
    about: dict[str, Any] = {
        "reading": "base64",
        "turn_scores": (0.25, None, 0.75),
        "top_turn": 2,
        "turn_new": True,
        "trajectory": 0.5,
        "path_length": 3.5,
        "judge": "waiting",
    }
    write(engine, BatchRows([message(0, unreadable=0.25, second_tokens=40), message(1)], [score(0, **about), score(1)]))
    first, second = stored(engine, schema.scores)
    assert {name: first[name] for name in about} == about | {"turn_scores": [0.25, None, 0.75]}
    assert {second[name] for name in (*about, "judge_by", "judge_at", "judge_reason")} == {None}
    assert [(r["unreadable"], r["second_tokens"]) for r in stored(engine, schema.messages)] == [
        (0.25, 40),
        (None, None),
    ]
    with pytest.raises(Exception, match="ck_scores_judge"):
        write(engine, BatchRows([message(2)], [score(2, judge="maybe")]))


def test_a_day_from_before_is_kept(engine: Engine) -> None:
    write(engine, BatchRows([message(0, day=date(1970, 1, 1))], [score(0)]))
    assert stored(engine, schema.scores)[0]["day"] == date(1970, 1, 1)
