"""What is erased is nowhere in the database, does not come back, and names nobody in what is left."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text, update

from alerts.lifecycle import actions
from alerts.lifecycle.audit import write_audit_row
from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.model import Flagged
from storage import schema
from storage.coordinates import Coordinates
from storage.erase import CHUNK, erase
from storage.erase_preview import preview
from storage.erasures import ErasureFileError, Target, lines, read, restore_tombstones, targets
from storage.partitions import utc_today
from storage.rollup import roll_up
from storage.sources import CONFLICT, Place, lock_streams, place
from storage.writer import AnswerRow, BatchRows, MessageRow, WindowRow, register_probe, write_batch
from tests.storage.test_partitions import role
from tests.support.alerts.alert_rows import all_alerts, all_outbox
from tests.support.alerts.alert_scenes import ANNA, audit_rows, in_transaction, rules, silence_matching
from tests.support.rows import at, counts, digest_of, dump, message, score, stored, wait_until_blocked, write

# No part of it is a word of its own anywhere else.
WHO = "canary-4711"
PER_CONVERSATION = '[[threshold]]\nname = "talk"\nper = ["tenant", "conversation"]\n'


def row(offset: int, *, who: str = WHO, mine: bool = True, **more: Any) -> MessageRow:
    """A message of the person's, or of somebody else's."""
    user = who if mine else "somebody"
    values = {
        "day": utc_today() - timedelta(days=offset % 3),
        "message_id": f"id-{user}-{offset}",
        "tenant": "shop",
        "user_id": user,
        "model": "smol",
        "conversation_id": f"talk-{user}",
        "text": {"messages": [{"role": "user", "content": f"secret of {user}"}]},
        "attributes": {"key_alias": user},
        "trace_id": f"trace-{user}",
        **more,
    }
    return message(offset, f"sha{offset}", **values)


def fill(engine: Engine, number: int = 6, *, who: str = WHO, **more: Any) -> None:
    """Even offsets are the person's, odd ones somebody else's; with everything that hangs on a message."""
    found = [row(n, who=who, mine=n % 2 == 0, **more) for n in range(number)]
    heads = ((1, 2, 0.5),)
    batch = BatchRows(
        found,
        [score(n, 0.5 + (n + 1) / 1000, heads=heads) for n in range(number)],
        [AnswerRow(at(n), "plain", 3, text=f"answer to {each.user_id}") for n, each in enumerate(found)],
        [WindowRow(at(n), "drift", 0, 0, 5, 0.2, digest_of("drift")) for n in range(number)],
    )
    write(engine, batch)
    in_transaction(engine, register_probe, digest_of("drift"), "drift", 1, "hash", {})
    of_rows = [
        Flagged(
            *("drift", 0.5 + (n + 1) / 1000, 0.5, each.tenant, "smol", at(n)),
            *(each.message_id, each.conversation_id, each.day),
        )
        for n, each in enumerate(found)
    ]
    in_transaction(engine, record_flagged, of_rows, ("pager", "siem"))
    in_transaction(engine, record_flagged, of_rows, ("pager",), rules(PER_CONVERSATION).threshold)
    for alert in all_alerts(engine):
        if alert.conversation_id == "talk-somebody":
            continue
        note = f"{who} wrote id-{who}-0, again"
        in_transaction(engine, actions.judge, alert.id, "true", ANNA, note)


@pytest.mark.parametrize(
    ("target", "left"),
    [
        (Target("user", WHO), [1, 3, 5]),
        (Target("conversation", f"talk-{WHO}"), [1, 3, 5]),
        (Target("id", f"id-{WHO}-0"), [1, 2, 3, 4, 5]),
    ],
)
def test_nothing_of_it_is_left_anywhere(engine: Engine, target: Target, left: list[int]) -> None:
    fill(engine)
    assert WHO in dump(engine)
    others = [r for r in stored(engine, schema.messages) if r["offset"] in left]
    counted = preview(engine, target)
    assert counted["messages"] == 6 - len(left)
    assert counts(engine)["messages"] == 6
    done = erase(engine, target)
    assert done.rows == counted
    assert done.rows["scores"] == done.rows["head_scores"] == counted["scores"] == 6 - len(left)
    assert target.value not in dump(engine)
    if target.kind != "id":
        assert f"id-{WHO}" not in dump(engine)
        assert f"secret of {WHO}" not in dump(engine)
    assert stored(engine, schema.messages) == others
    for table in (schema.scores, schema.head_scores, schema.window_scores, schema.answers):
        assert sorted(r["offset"] for r in stored(engine, table)) == left
    assert preview(engine, target) == {}


def test_a_tenant_goes_with_its_alerts_silences_sums_and_tokens(engine: Engine) -> None:
    fill(engine, tenant=WHO)
    write(engine, BatchRows([row(90, mine=False)], [score(90)]))
    silence_matching(engine, tenant=WHO)
    silence_matching(engine, tenant=f"{WHO}*", rule="threshold")
    silence_matching(engine, tenant="other")
    roll_up_all(engine)
    with engine.begin() as connection:
        values = {"name": "t", "secret_sha256": b"1", "scope": "read", "created_by": "a", "id": uuid.uuid4()}
        ends = {"expires_at": text("now() + interval '1 day'")}
        connection.execute(insert(schema.api_tokens).values(values | ends | {"tenant": WHO}))
        connection.execute(
            insert(schema.rule_states).values(
                dedup_key=f"burst:drift:{WHO}",
                rule="burst",
                phase="pending",
                held_seconds=1,
                subject={"probe": "drift", "tenant": WHO},
                evaluated_at=text("now()"),
            )
        )
    counted = preview(engine, Target("tenant", WHO))
    assert counted["alerts"] == 3
    assert erase(engine, Target("tenant", WHO)).rows == counted
    assert WHO not in dump(engine)
    assert [r["offset"] for r in stored(engine, schema.messages)] == [90]
    assert [r["tenant"] for r in stored(engine, schema.silences)].count("other") == 1
    assert all_alerts(engine) == []
    assert all_outbox(engine) == []


def roll_up_all(engine: Engine) -> None:
    with engine.begin() as connection:
        for table, column in (("scores", "created_at"), ("messages", "ingested_at")):
            connection.execute(text(f"UPDATE {table} SET {column} = {column} - interval '1 hour'"))  # noqa: S608
    assert roll_up(engine)
    assert WHO in str(stored(engine, schema.score_rollups))


def test_an_alert_of_several_people_stays_as_a_sum(engine: Engine) -> None:
    fill(engine)
    erase(engine, Target("user", "somebody"))
    alerts = {a.rule: a for a in all_alerts(engine)}
    shared = alerts["threshold"]
    # The message with the highest score was somebody's, the first one was not.
    assert (shared.count, shared.top_message) == (6, None)
    assert shared.first_message["id"] == f"id-{WHO}-0"
    assert [a.conversation_id for a in all_alerts(engine) if a.rule == "talk"] == [f"talk-{WHO}"]
    assert len([r for r in stored(engine, schema.alert_messages) if r["alert_id"] == shared.id]) == 3


def test_a_word_within_another_one_stays(engine: Engine) -> None:
    fill(engine, who="ann")
    in_transaction(engine, write_audit_row, ANNA, "note", after={"note": "ann and anna", "state": "ann"})
    erase(engine, Target("user", "ann"))
    assert audit_rows(engine)[-1].after == {"note": "[erased] and anna", "state": "ann"}


@pytest.mark.parametrize("log", [None, "a-log"])
def test_what_was_erased_is_not_stored_again(engine: Engine, log: str | None) -> None:
    batch = BatchRows([row(n) for n in range(3)], [score(n) for n in range(3)])

    def deliver() -> Any:
        with engine.begin() as connection:
            lock_streams(connection, [("topic", 0)])
            placed = place(connection, [Place("topic", 0, n, log, f"sha{n}") for n in range(3)])
            assert placed.names == ["topic"] * 3
            return write_batch(connection, batch, placed.known)

    assert deliver().messages == 3
    erase(engine, Target("user", WHO))
    written = deliver()
    assert (written.messages, written.scores) == (0, ())
    assert written.erased == {(at(n), f"sha{n}") for n in range(3)}
    assert WHO not in dump(engine)
    # Another payload there is another message.
    with engine.begin() as connection:
        assert write_batch(connection, BatchRows([MessageRow(at(7), "x", utc_today(), "scored")])).messages == 1
        assert place(connection, [Place("topic", 0, 0, "other-log", "other")]).names == ["topic@2"]


def test_a_conflict_is_erased_and_stays_so(engine: Engine) -> None:
    first, second = row(0, mine=False), MessageRow(at(0), "other", utc_today(), "scored", user_id=WHO)
    write(engine, BatchRows([first], [score(0)]))
    assert write(engine, BatchRows([second], [score(0, probe="late")])).conflicts == {at(0)}
    erase(engine, Target("user", WHO))
    assert len(stored(engine, schema.scores)) == 1
    assert write(engine, BatchRows([second])).erased == {(at(0), "other")}
    (kept,) = stored(engine, schema.messages)
    assert (kept["user_id"], kept["reason"]) == ("somebody", None)
    # And one whose first message was erased.
    erase(engine, Target("user", "somebody"))
    write(engine, BatchRows([MessageRow(at(0), "third", utc_today(), "scored", user_id="third")]))
    (kept,) = stored(engine, schema.messages)
    assert (kept["user_id"], kept["status"], kept["reason"]) == ("third", "failed", CONFLICT)


def test_a_batch_in_flight_leaves_nothing_behind(engine: Engine) -> None:
    """A writer's transaction that began before the end of the erasure is waited for."""
    write(engine, BatchRows([row(0)], [score(0)]))
    done: list[Any] = []
    with engine.begin() as connection:
        write_batch(connection, BatchRows([row(2)], [score(2)]))
        thread = threading.Thread(target=lambda: done.append(erase(engine, Target("user", WHO))))
        thread.start()
        wait_until_blocked(engine)
        assert not done
    thread.join(60)
    assert done[0].rows["messages"] == 2
    assert WHO not in dump(engine)


def test_more_than_one_transaction(engine: Engine) -> None:
    number = 2 * CHUNK + 3
    write(engine, BatchRows([row(n) for n in range(number)], [score(n) for n in range(number)]))
    days: list[int] = []
    done = erase(engine, Target("user", WHO), on_day=lambda _, n: days.append(n))
    assert done.rows["messages"] == done.rows["scores"] == sum(days) == number
    assert len(days) == 3
    assert len(stored(engine, schema.erased_messages)) == number


def test_the_record_names_nobody_and_finds_them_after_a_restore(engine: Engine) -> None:
    fill(engine)
    done = erase(engine, Target("user", WHO))
    with engine.connect() as connection:
        written = list(lines(connection))
    assert WHO not in "".join(written)
    # As it was before: a backup knows nothing of the erasure, and has the messages.
    with engine.begin() as connection:
        for table in ("erased_messages", "erasures"):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608
    write(engine, BatchRows([row(n) for n in (0, 2)], [score(0)]))
    recorded = read(written)
    with engine.begin() as connection:
        found = targets(connection, recorded)
        assert restore_tombstones(connection, recorded) == 3
        assert restore_tombstones(connection, recorded) == 0
    assert found == [(done.id, Target("user", WHO))]
    erase(engine, found[0][1], erasure_id=found[0][0])
    assert WHO not in dump(engine)
    assert len(stored(engine, schema.erasures)) == 1
    # Message 4 came after the backup: its tombstone holds all the same.
    assert write(engine, BatchRows([row(4)])).messages == 0


@pytest.mark.parametrize("line", ["x", "{}", "[]", '{"kind": "name"}', '{"source": "a"}', "3"])
def test_a_file_that_is_none(line: str) -> None:
    with pytest.raises(ErasureFileError, match=r"^replay: line 2 is no erasure; give a file that awry erase --record"):
        read(["", line])


def test_a_record_that_was_cut_is_none(engine: Engine) -> None:
    fill(engine)
    erase(engine, Target("user", WHO))
    with engine.connect() as connection:
        whole = list(lines(connection))
    assert read(whole).whole
    broken = [whole[:n] for n in range(len(whole))] + [whole[1:], whole[:2] + whole[3:], [*whole, whole[1]]]
    said = r"^replay: (the file (was cut off|has no erasure)|line 7 is no erasure)"
    for each in broken:
        with pytest.raises(ErasureFileError, match=said):
            read(each)
    # As files were written before.
    older = read(whole[1:-1])
    assert (older.whole, older.counts()) == (False, {"erasures": 1, "tombstones": 3})


def test_two_erasures_share_a_salt_and_say_what(engine: Engine) -> None:
    fill(engine)
    first, second = (erase(engine, Target("user", who)) for who in (WHO, "somebody"))
    rows = {r["id"]: r for r in stored(engine, schema.erasures)}
    assert rows[first.id]["salt"] == rows[second.id]["salt"]
    assert rows[first.id]["value_sha256"] != rows[second.id]["value_sha256"]
    assert [(r["kind"], r["messages"]) for r in rows.values()] == [("user", 3)] * 2
    assert all(r["finished_at"] is not None for r in rows.values())


def test_a_grouped_notification_goes_on_without_them(engine: Engine) -> None:
    """Rows that were grouped with an erased alert's are grouped anew; a page that names it does so no longer."""
    fill(engine)
    mine, other = ({a.conversation_id: a for a in all_alerts(engine)}[f"talk-{who}"] for who in (WHO, "somebody"))
    of = {o.alert_id: o for o in all_outbox(engine) if o.destination == "pager"}
    with engine.begin() as connection:
        page = {"data": {"top_message": mine.top_message, "text": {"a": "secret"}, "group": {"others": [WHO]}}}
        connection.execute(
            update(schema.outbox).where(schema.outbox.c.id == of[mine.id].id).values(page_id=of[mine.id].id, page=page)
        )
        connection.execute(
            update(schema.outbox).where(schema.outbox.c.id == of[other.id].id).values(page_id=of[mine.id].id)
        )
    erase(engine, Target("user", WHO))
    with engine.connect() as connection:
        (left,) = connection.execute(select(schema.outbox).where(schema.outbox.c.id == of[other.id].id)).all()
    assert left.page_id is None
    assert "secret" not in dump(engine).replace("secret of somebody", "")


def test_a_role_that_may_not_delete_is_told_so(engine: Engine) -> None:
    fill(engine)
    with role(engine, "SELECT ON ALL TABLES IN SCHEMA public") as reader, pytest.raises(Exception, match="database: "):
        erase(reader, Target("user", WHO))
    assert counts(engine)["messages"] == 6


def test_messages_of_a_record_are_told_apart(engine: Engine) -> None:
    one, two = (
        MessageRow(Coordinates("topic", 0, 1, sub), "s", utc_today(), "scored", user_id=f"u{sub}") for sub in (0, 1)
    )
    write(engine, BatchRows([one, two]))
    erase(engine, Target("user", "u1"))
    assert write(engine, BatchRows([one, two])).erased == {(two.at, "s")}
    assert [r["user_id"] for r in stored(engine, schema.messages)] == ["u0"]
