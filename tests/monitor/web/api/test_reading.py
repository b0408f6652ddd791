"""Precision, one message, probes and deliveries: numbers that are right, and no text."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, text

from probes.card import load_probe, shipped_probes
from probes.evaluation import rate
from storage.coordinates import Coordinates
from storage.judgements import record_judgement
from storage.partitions import utc_today
from storage.writer import BatchRows, WindowRow, register_probe
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.alert_scenes import scored
from tests.support.rows import at, digest_of, message, score, write
from tests.support.web.api import Client

CANARY = "CANARYTEXT"


def test_precision_is_the_command_lines(engine: Engine, act: Client) -> None:
    for n, verdict in enumerate(["true"] * 6 + ["false"] * 3 + ["authorised_test", None]):
        (one,) = open_alerts(engine, [flagged(n, tenant=f"t{n}")])
        if verdict:
            act.post(f"/alerts/{one.alert_id}/verdict", body={"verdict": verdict})
    open_alerts(engine, [flagged(50, probe="other")])
    drift, other = act.get("/precision")
    assert {k: drift[k] for k in ("rule", "probe", "true", "authorised_test", "false", "not_judged")} == {
        "rule": "threshold",
        "probe": "drift",
        "true": 6,
        "authorised_test": 1,
        "false": 3,
        "not_judged": 1,
    }
    same = rate(7, 10)
    assert drift["precision"] == pytest.approx({"value": 0.7, "low": same.low, "high": same.high, "n": 10}, abs=1e-9)
    assert (other["probe"], other["not_judged"], other["precision"]) == ("other", 1, None)


@pytest.mark.parametrize(("verdict", "low", "high"), [("true", 0.025, 1), ("false", 0, 0.975)])
def test_one_judgement_says_little(engine: Engine, act: Client, verdict: str, low: float, high: float) -> None:
    (one,) = open_alerts(engine, [flagged(1)])
    act.post(f"/alerts/{one.alert_id}/verdict", body={"verdict": verdict})
    (found,) = act.get("/precision")
    assert (found["precision"]["low"], found["precision"]["high"]) == pytest.approx((low, high), abs=1e-9)


def test_a_message(engine: Engine, read: Client) -> None:
    day = utc_today()
    names: dict[str, Any] = {
        "tenant": "shop",
        "user_id": "u1",
        "model": "smol",
        "conversation_id": "c1",
        "message_id": "m1",
    }
    texts: dict[str, Any] = {"text": {"prompt": CANARY}, "text_sha256": "ab", "attributes": {"note": CANARY}}
    row = message(1, "aa", day=day, tokens=12, **names, **texts)
    write(engine, BatchRows([row], [score(1, 0.9), score(1, 0.1, "other")]))
    (one,) = open_alerts(engine, [flagged(1, 0.9)])
    answer = read.ask("GET", "/messages/topic/0/1", 200)
    assert CANARY not in answer.text
    found = answer.json()
    assert {name: found[name] for name in names} == names
    assert (found["status"], found["tokens"], found["conflicts"], found["day"]) == ("scored", 12, 0, day.isoformat())
    of_turns = ("reading", "turn_scores", "top_turn", "turn_new", "trajectory", "path_length")
    none = dict.fromkeys((*of_turns, "judge", "judge_by", "judge_at", "judge_reason"))
    first, second = ({"digest": digest_of(probe), **none} for probe in ("drift", "other"))
    assert found["scores"] == [
        {"probe": "drift", "version": 1, **first, "score": 0.9, "threshold": 0.5, "flagged": True},
        {"probe": "other", "version": 1, **second, "score": 0.1, "threshold": 0.5, "flagged": False},
    ]
    assert [(a["id"], a["state"], a["rule"]) for a in found["alerts"]] == [(str(one.alert_id), "open", "threshold")]
    assert not {"text", "text_sha256", "attributes", "payload_sha256"} & set(found)


def test_what_a_judge_says_of_a_score(engine: Engine, read: Client) -> None:
    """Beside the probe's own verdict, by probe; what waits has no judge yet."""
    rows = [
        score(1, 0.9, judge="waiting"),
        score(1, 0.1, "other", judge="waiting"),
        score(1, 0.0, "third", judge="not asked", judge_reason="queue full"),
    ]
    write(engine, BatchRows([message(1, day=utc_today())], rows))
    when = datetime(2026, 3, 1, 12, tzinfo=UTC)
    with engine.begin() as connection:
        place = (at(1), "drift", digest_of("drift"))
        assert record_judgement(connection, *place, "harmless", "small at llm.example", "confidence 0.80", when)
    fields = ("flagged", "judge", "judge_by", "judge_at", "judge_reason")
    found = {s["probe"]: tuple(s[name] for name in fields) for s in read.get("/messages/topic/0/1")["scores"]}
    assert found == {
        "drift": (True, "harmless", "small at llm.example", "2026-03-01T12:00:00Z", "confidence 0.80"),
        "other": (False, "waiting", None, None, None),
        "third": (False, "not asked", None, None, "queue full"),
    }


def test_why_a_message_has_no_score(engine: Engine, read: Client) -> None:
    write(engine, BatchRows([message(1, status="invalid", reason="field prompt: is missing", day=utc_today())]))
    found = read.get("/messages/topic/0/1")
    assert (found["status"], found["reason"], found["scores"]) == ("invalid", "field prompt: is missing", [])


def test_what_was_read_of_a_message(engine: Engine, read: Client) -> None:
    facts: dict[str, Any] = {
        "format": "openai.chat",
        "rendered": "adapted",
        "notes": ("system joined to the first user turn",),
        "unread": {"image": 2},
        "special_tokens": 3,
        "partial": "length,media",
        "windows": 4,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    windows = [WindowRow(at(1), "drift", n, 512 * n, 512, value, "d1") for n, value in ((0, 0.25), (2, -1.0))]
    write(engine, BatchRows([message(1, day=utc_today(), **facts), message(2, "b", day=utc_today())], [], [], windows))
    found = read.get("/messages/topic/0/1")
    assert {name: found[name] for name in facts} == facts | {"notes": list(facts["notes"])}
    assert found["window_scores"] == [
        {"probe": "drift", "digest": "d1", "window": 0, "first_token": 0, "tokens": 512, "score": 0.25},
        {"probe": "drift", "digest": "d1", "window": 2, "first_token": 1024, "tokens": 512, "score": -1.0},
    ]
    plain = read.get("/messages/topic/0/2")
    absent = {"format", "rendered", "partial", "windows", "trace_id", "sent_at", "sent_at_stored"}
    assert {plain[name] for name in absent} == {None}
    assert (plain["notes"], plain["unread"], plain["special_tokens"], plain["window_scores"]) == ([], {}, 0, [])


def test_each_message_of_a_record(engine: Engine, read: Client) -> None:
    places = [Coordinates("a/b", 3, 1204, sub) for sub in (0, 7)]
    rows = [replace(message(0, day=utc_today(), message_id=f"sub {p.sub}"), at=p) for p in places]
    write(engine, BatchRows(rows, [replace(score(0), at=places[1])]))
    write(engine, BatchRows([replace(rows[1], payload_sha256="bb")]))
    for path, sub, conflicts, scores in (("1204", 0, 0, 0), ("1204.0", 0, 0, 0), ("1204.7", 7, 1, 1)):
        found = read.get(f"/messages/a/b/3/{path}")
        assert (found["message_id"], found["sub"], found["conflicts"]) == (f"sub {sub}", sub, conflicts)
        assert len(found["scores"]) == scores
    read.get("/messages/a/b/3/1204.8", 404)


@pytest.mark.parametrize("stored", ["infinity", "-infinity", "10000-01-01 11:59:59+00", "0001-12-31 10:00:00+00 BC"])
def test_a_time_that_json_has_not(engine: Engine, read: Client, stored: str) -> None:
    write(engine, BatchRows([message(1, day=utc_today())]))
    with engine.begin() as connection:
        connection.execute(text("UPDATE messages SET sent_at = CAST(:at AS timestamptz)"), {"at": stored})
    found = read.get("/messages/topic/0/1")
    assert found["sent_at"] is None
    assert re.search(r"infinity|10000|BC", found["sent_at_stored"])
    # The next one on the same connection is read as ever.
    assert read.get("/deliveries")["oldest_pending_seconds"] == 0


def test_a_time_is_in_utc(engine: Engine, read: Client) -> None:
    write(engine, BatchRows([message(1, day=utc_today(), sent_at=datetime(2026, 3, 1, 12, tzinfo=UTC))]))
    found = read.get("/messages/topic/0/1")
    assert (found["sent_at"], found["sent_at_stored"]) == ("2026-03-01T12:00:00Z", None)


def test_other_content_at_the_same_place(engine: Engine, read: Client) -> None:
    write(engine, BatchRows([message(1, "aa", day=utc_today(), message_id="first")], [score(1)]))
    write(engine, BatchRows([message(1, "bb", day=utc_today(), message_id="second")], [score(1)]))
    found = read.get("/messages/topic/0/1")
    assert (found["message_id"], found["status"], found["conflicts"], len(found["scores"])) == ("first", "scored", 1, 1)


@pytest.mark.parametrize("source", ["file.jsonl", "/var/log/llm traffic.jsonl", "ä?#", "a/0/1", "-"])
def test_whatever_a_source_is_called(engine: Engine, read: Client, source: str) -> None:
    write(engine, BatchRows([replace(message(7, day=utc_today()), at=at(7, source))]))
    assert read.get(f"/messages/{quote(source, safe='')}/0/7")["source"] == source


@pytest.mark.parametrize("path", ["topic/0/2", "other/0/1", "topic/1/1", "topic%00/0/1"])
def test_a_message_that_is_not_known(engine: Engine, read: Client, path: str) -> None:
    scored(engine, 1)
    assert read.get(f"/messages/{path}", 404)["detail"] == "no message is known at these coordinates"


@pytest.mark.parametrize(
    ("path", "field", "said"),
    [
        ("topic/x/1", "path.partition", "integer"),
        ("topic/0/x", "path.offset", "not a number, nor OFFSET.SUB such as 1204.7"),
        ("topic/0/1.", "path.offset", "not a number"),
        ("topic/0/-1", "path.offset", "not a number"),
        (f"topic/0/1.{2**31}", "path.offset", "less than or equal to 2147483647"),
        (f"topic/{'9' * 5000}/0", "path.partition", "is too large"),
        ("topic/-1/1", "path.partition", "greater than or equal to 0"),
        ("topic/2147483648/1", "path.partition", "less than or equal to 2147483647"),
        ("topic/0/9223372036854775808", "path.offset", "less than or equal to 9223372036854775807"),
        (f"topic/0/{'9' * 5000}", "path.offset", "is too large"),
    ],
)
def test_coordinates_that_cannot_be(read: Client, path: str, field: str, said: str) -> None:
    (error,) = read.get(f"/messages/{path}", 422)["errors"]
    assert error["field"] == field
    assert said in error["problem"]


def test_probes_with_their_cards_and_no_text(engine: Engine, read: Client) -> None:
    name = next(iter(shipped_probes()))
    probe = load_probe(name)
    card = probe.card
    texts = [m["content"] for reference in card.references for m in reference.messages]
    assert texts
    with engine.begin() as connection:
        stored = card.model_dump(mode="json", exclude={"seen"})
        register_probe(connection, probe.digest, card.name, card.version, card.safetensors_sha256, stored)
        register_probe(
            connection, "z1", "zz", 1, "hash", {"references": [CANARY], "examples": [CANARY], "units": "gaps"}
        )
        register_probe(connection, "z2", "zz", 2, "hash", {})
    answer = read.ask("GET", "/probes", 200)
    first, second, third = answer.json()
    assert [each["digest"] for each in (first, second, third)] == [probe.digest, "z1", "z2"]
    assert (first["name"], first["version"]) == (card.name, card.version)
    # All of the card but its texts, and what the answer says beside it.
    assert first["card"] == {k: v for k, v in stored.items() if k not in ("references", "name", "version")}
    assert not [t for t in (*texts, CANARY) if t in answer.text]
    assert (second["card"], third["version"], third["card"]) == ({"units": "gaps"}, 2, {})


def test_deliveries_by_destination(engine: Engine, read: Client) -> None:
    assert read.get("/deliveries") == {
        "events": {"pending": 0, "delivered": 0, "dead": 0},
        "oldest_pending_seconds": 0.0,
        "destinations": [],
    }
    open_alerts(engine, [flagged(1), flagged(2, tenant="bank")], ("pager", "siem"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET delivered_at = now() WHERE destination = 'siem'"))
        one = "(SELECT id FROM outbox WHERE destination = 'pager' LIMIT 1)"
        connection.execute(text(f"UPDATE outbox SET dead_at = now(), last_error = '500' WHERE id = {one}"))  # noqa: S608
        connection.execute(text("UPDATE outbox SET created_at = now() - :by"), {"by": timedelta(seconds=90)})
        connection.execute(
            text(
                "INSERT INTO destinations (name, fingerprint, failures, last_error) "
                "VALUES ('pager', 'f', 3, '500'), ('old', 'f', 0, NULL)"
            )
        )
    found = read.get("/deliveries")
    assert found["events"] == {"pending": 1, "delivered": 2, "dead": 1}
    assert 90 <= found["oldest_pending_seconds"] < 150
    assert {d["name"]: (*d["events"].values(), d["failures"], d["last_error"]) for d in found["destinations"]} == {
        "old": (0, 0, 0, 0, None),
        "pager": (1, 0, 1, 3, "500"),
        "siem": (0, 2, 0, 0, None),
    }
