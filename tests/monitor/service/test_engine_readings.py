"""Readings of a serving engine through the worker: one row a request, the card's verdict, nothing missing unseen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from alerts.rules.model import MonitorRule
from alerts.rules.queries import measure_monitor
from monitor.doctor.model import model
from monitor.errors import SettingsError
from monitor.readings.publisher import Publisher, PublisherOptions
from monitor.readings.schema import Reading, as_json, loads
from monitor.service.engine_readings import EngineReadings
from monitor.service.policy import Policy
from monitor.service.reading_run import check_readings
from monitor.service.reading_scores import ReadingScorer
from monitor.service.worker import Worker
from monitor.settings import load_settings
from monitor.stream.jsonl import JsonLines
from monitor.stream.parse import ParseOptions, Parser
from monitor.stream.sinks import Outputs
from monitor.stream.sinks.jsonl import JsonLinesSink
from monitor.telemetry import metrics
from probes.calibration import LengthCorrection
from probes.card import Probe
from probes.model.load import ChatModel
from storage import schema
from storage.coordinates import Coordinates
from storage.known import ScoredBy
from storage.queries.messages import message_detail, same_message_elsewhere
from storage.readings import Published, track, watch
from storage.writer import register_probe
from tests.support.rows import counts, dump, stored
from tests.support.stream.worker import make_probe, run_worker, wire

INSTANCE, OTHER = "0a" * 16, "0b" * 16
BEGAN = datetime(2026, 11, 29, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def probe(chat: ChatModel) -> Probe:
    return make_probe(chat, threshold=1.0)


def reading(n: int, request: str = "", /, value: float | None = 0.0, *, of: Probe | None = None, **more: Any) -> Any:
    made = {
        "awry_reading": 1,
        "engine": "vllm 0.32.0",
        "instance": INSTANCE,
        "sequence": n,
        "kind": "final",
        "created": (BEGAN + timedelta(seconds=n)).isoformat(),
        "id": request or f"r{n}",
        "model": "served",
        "tokens": {"prompt": 20, "response": 3, "cached": 16},
        "tenant": "shop",
        "verified": ["tenant"],
    }
    if of is not None and value is not None:
        made["probes"] = [{"name": of.name, "digest": of.digest, "value": value, "tokens": 20}]
    return {name: each for name, each in (made | more).items() if each is not ...}


def heartbeat(n: int, **more: Any) -> Any:
    value = reading(n, kind="heartbeat") | more
    return {name: each for name, each in value.items() if name not in ("id", "tokens", "tenant", "verified")}


def run(engine: Engine, path: Path, lines: Sequence[Any], probes: Sequence[Probe], **policy: Any) -> Worker:
    """The lines are added to the file, which a worker reads from its first."""
    with path.open("a") as file:
        file.writelines((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines)
    with engine.begin() as connection:
        for each in probes:
            register_probe(connection, each.digest, each.name, 1, "hash", {})
    source = JsonLines(str(path), name="readings")
    settings = Policy(
        tuple(each.name for each in probes),
        "readings",
        **{
            "destinations": ("console",),
            "batch_messages": 8,
            "scored_by": tuple(ScoredBy(each.name, each.digest) for each in probes),
            "parsing": ParseOptions(readings=True),
            "readings_grace_seconds": 3600.0,
            **policy,
        },
    )
    outputs = Outputs(
        verdicts=JsonLinesSink(str(path) + ".verdicts", "v"), dead_letters=JsonLinesSink(str(path) + ".dead", "d")
    )
    worker = Worker(source, ReadingScorer(probes), engine, settings, outputs=outputs)
    try:
        worker.run()
    finally:
        source.close()
        outputs.close()
    return worker


def rows(engine: Engine) -> dict[str, dict[str, Any]]:
    return {str(row["message_id"]): row for row in stored(engine, schema.messages)}


def scores(engine: Engine) -> list[dict[str, Any]]:
    return sorted(stored(engine, schema.scores), key=lambda row: row["offset"])


def alerts(engine: Engine) -> list[tuple[Any, ...]]:
    found = stored(engine, schema.alerts)
    return sorted((row["probe"], row["tenant"], row["model"], row["count"], row["severity"]) for row in found)


def test_a_reading_becomes_what_a_message_becomes(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "r"
    more = {"user": "ann", "conversation_id": "c", "trace_id": "ab", "finish": "stop", "attributes": {"route": "eu"}}
    lines = [heartbeat(0), reading(1, "low", 0.5, of=probe), reading(2, "high", 1.25, of=probe, **more), heartbeat(3)]
    worker = run(engine, path, lines, [probe])
    found = rows(engine)
    assert found.keys() == {"low", "high"}
    assert worker.tally.by_status == {"scored": 2}
    high = found["high"]
    assert (high["status"], high["format"], high["tokens"], high["reason"]) == ("scored", "reading", 23, None)
    assert (high["tenant"], high["user_id"], high["model"]) == ("shop", "ann", "served")
    assert (high["conversation_id"], high["trace_id"]) == ("c", "ab")
    assert high["sent_at"] == BEGAN + timedelta(seconds=2)
    assert (high["text"], high["text_sha256"]) == (None, None)
    assert high["attributes"] == {
        "engine": "vllm/0.32.0",
        "engine_instance": INSTANCE,
        "engine_sequence": 2,
        "verified": "tenant",
        "finish_reason": "stop",
        "prompt_tokens": 20,
        "completion_tokens": 3,
        "cached_tokens": 16,
        "route": "eu",
    }
    # The tenant is the server's word, the user is the client's.
    assert high["notes"] == ["user: as the client says, the server does not vouch for it"]
    assert [(row["score"], row["threshold"], row["flagged"], row["probe_digest"]) for row in scores(engine)] == [
        (0.5, 1.0, False, probe.digest),
        (1.25, 1.0, True, probe.digest),
    ]
    assert alerts(engine) == [("drift", "shop", "served", 1, "warning")]
    said = [json.loads(line) for line in Path(f"{path}.verdicts").read_text().splitlines()]
    assert [(line["id"], line["decision"]) for line in said] == [("low", "pass"), ("high", "flag")]
    before = counts(engine), dump(engine, without=("workers", "reading_instances"))
    again = run(engine, path, [], [probe])
    assert (counts(engine), dump(engine, without=("workers", "reading_instances"))) == before
    assert again.tally.by_status == {}


def test_clients_cannot_say_what_the_engine_says(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    forged = {"verified": "tenant,user", "steered_by": "x", "engine_instance": OTHER, "prompt_tokens": 1}
    run(engine, tmp_path / "r", [reading(0, of=probe, attributes=forged, verified=[])], [probe], privacy="full")
    (row,) = stored(engine, schema.messages)
    assert row["attributes"].items() >= {"engine_instance": INSTANCE, "prompt_tokens": 20}.items()
    assert not {"verified", "steered_by"} & row["attributes"].keys()
    assert row["text"] is None


def test_length_turns_and_parts_are_the_cards_to_judge(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    heads = make_probe(chat, "heads", threshold=1.0, sites=("head[0,0]", "head[1,2]"))
    calibration = replace(heads.card.calibration, length=LengthCorrection(((16, 0.0), (64, 0.5)), 1000))
    corrected = Probe(heads.card.model_copy(update={"calibration": calibration}), heads.directions)
    one = {"name": "heads", "digest": corrected.digest, "value": 1.5, "tokens": 64, "parts": [1.0, 2.0]}
    turns = {"turns": [[0, 0.5], [2, 1.5]]}
    known = reading(0, probes=[one | turns], roles=["user", "assistant", "user"])
    run(engine, tmp_path / "r", [known, reading(1, probes=[one | turns]), reading(2, probes=[one])], [corrected])
    # Half a class gap is the rise of a maximum over so many tokens.
    score = 1.0
    found = scores(engine)
    assert [row["score"] for row in found] == [score] * 3
    assert [row["turn_scores"] for row in found] == [[score - 1.0, None, score], [score - 1.0, None, score], None]
    # Without the roles it is not known whether somebody has answered the turn.
    assert [(row["top_turn"], row["turn_new"]) for row in found] == [(2, True), (2, None), (None, None)]
    with engine.connect() as connection:
        detail = message_detail(connection, Coordinates("readings", 0, 0))
    assert detail is not None
    assert [(row["layer"], row["head"], row["score"]) for row in detail.heads] == [(0, 0, 1.0), (1, 2, 2.0)]


def test_a_card_that_is_not_the_engines(engine: Engine, chat: ChatModel, probe: Probe, tmp_path: Path) -> None:
    other = make_probe(chat, "other", threshold=1.0)
    unknown = {"name": "drift", "digest": "cd" * 16, "value": 9.0, "tokens": 3}
    strange = {"name": "strange", "digest": "ef" * 16, "value": 9.0, "tokens": 3}
    here = {"name": "other", "digest": other.digest, "value": 2.0, "tokens": 3}
    parts = {"name": "drift", "digest": probe.digest, "value": 9.0, "tokens": 3, "parts": [1, 2]}
    lines = [
        reading(0, "none", probes=[unknown]),
        reading(1, "some", probes=[unknown, strange, here]),
        reading(2, "unread", not_scored=[{"name": "drift", "reason": "aborted before its first token"}]),
        reading(3, "parts", probes=[parts]),
        reading(4, "empty"),
    ]
    path = tmp_path / "r"
    run(engine, path, lines, [probe, other])
    found = {name: (row["status"], row["reason"]) for name, row in rows(engine).items()}
    another = f"drift: the engine read by {'cd' * 16}, the card here is {probe.digest}"
    assert found == {
        "none": ("invalid", f"{another}; other: the engine does not read it"),
        "some": (
            "scored",
            f"{another}; strange: no such probe is loaded here (the engine's has the digest {'ef' * 16})",
        ),
        "unread": ("skipped", "drift: aborted before its first token; other: the engine does not read it"),
        "parts": ("invalid", "drift: 2 parts, the card has 1 directions; other: the engine does not read it"),
        "empty": ("skipped", "drift: the engine does not read it; other: the engine does not read it"),
    }
    assert [(row["probe"], row["score"]) for row in scores(engine)] == [("other", 2.0)]
    dead = [json.loads(line) for line in Path(f"{path}.dead").read_text().splitlines()]
    assert [(line["id"], line["status"]) for line in dead] == [("none", "invalid"), ("parts", "invalid")]


def test_an_invalid_reading_is_scored_once_its_card_is_here(
    engine: Engine, chat: ChatModel, probe: Probe, tmp_path: Path
) -> None:
    promoted = make_probe(chat, threshold=0.5)
    path = tmp_path / "r"
    run(engine, path, [reading(0, "early", 0.75, of=promoted)], [probe])
    assert rows(engine)["early"]["status"] == "invalid"
    run(engine, path, [], [promoted])
    assert rows(engine)["early"]["status"] == "scored"
    assert alerts(engine) == [("drift", "shop", "served", 1, "warning")]


def test_what_is_no_reading(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    odd = ["{broken", json.dumps(wire("m", "GEHEIM")), json.dumps(reading(0, awry_reading=7)), "[]"]
    run(engine, tmp_path / "r", [*odd, json.dumps([reading(1, "a", of=probe), reading(2, "b", of=probe)])], [probe])
    found = stored(engine, schema.messages)
    assert sorted((row["status"], row["message_id"]) for row in found if row["status"] != "invalid") == [
        ("scored", "a"),
        ("scored", "b"),
    ]
    reasons = " ".join(row["reason"] for row in found if row["status"] == "invalid")
    assert "awry_reading: missing" in reasons
    assert "version 7, and this awry reads 1" in reasons
    assert "GEHEIM" not in reasons
    # And the other way round.
    (found_one,) = Parser()(json.dumps(reading(1)).encode())
    assert "awry run --readings" in getattr(found_one, "reason", "")


# What is missing.


def gaps(engine: Engine) -> list[tuple[Any, ...]]:
    found = [row for row in stored(engine, schema.reading_gaps) if row["filled_at"] is None]
    return sorted((row["kind"], row["first"], row["last"], row["readings"], row["counted_at"] is None) for row in found)


def age(engine: Engine, seconds: float = 4000.0) -> None:
    with engine.begin() as connection:
        moved = "first_seen_at = first_seen_at - make_interval(secs => :s)"
        connection.execute(text(f"UPDATE reading_gaps SET {moved}"), {"s": seconds})  # noqa: S608
        also = f"{moved}, last_seen_at = last_seen_at - make_interval(secs => :s)"
        connection.execute(text(f"UPDATE reading_instances SET {also}"), {"s": seconds})  # noqa: S608


def measured(engine: Engine, check: Any) -> list[float]:
    with engine.connect() as connection:
        return [each.value for each in measure_monitor(connection, MonitorRule(name="r", check=check))]


def test_holes_are_counted_and_alerted_and_late_readings_close_them(
    engine: Engine, probe: Probe, tmp_path: Path
) -> None:
    path = tmp_path / "r"
    before = metrics.READING_GAPS.labels("hole")._value.get(), metrics.READINGS_LOST._value.get()
    run(engine, path, [reading(n, of=probe) for n in (0, 1, 4, 7)], [probe])
    assert gaps(engine) == [("hole", 2, 3, 2, True), ("hole", 5, 6, 2, True)]
    assert measured(engine, "reading_gaps") == [0]
    run(engine, path, [reading(2, of=probe), reading(3, of=probe)], [probe])
    assert gaps(engine) == [("hole", 5, 6, 2, True)]
    age(engine)
    # A worker that has just started knows of it by the tables.
    run(engine, path, [reading(8, of=probe)], [probe])
    assert gaps(engine) == [("hole", 5, 6, 2, False)]
    after = metrics.READING_GAPS.labels("hole")._value.get(), metrics.READINGS_LOST._value.get()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 2)
    assert measured(engine, "reading_gaps") == [1]
    run(engine, path, [reading(6, of=probe), reading(5, of=probe)], [probe])
    assert gaps(engine) == []
    assert measured(engine, "reading_gaps") == [0]
    assert len(rows(engine)) == 9


def test_a_reading_that_was_sent_twice_is_one_row(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "r"
    before = metrics.READINGS_REPEATED._value.get()
    sent = [reading(n, value=2.0, of=probe) for n in range(6)]
    run(engine, path, [*sent, *sent[2:4], heartbeat(6), heartbeat(6)], [probe])
    run(engine, path, sent[5:], [probe])
    assert len(rows(engine)) == len(scores(engine)) == 6
    assert alerts(engine) == [("drift", "shop", "served", 6, "critical")]
    assert gaps(engine) == []
    assert metrics.READINGS_REPEATED._value.get() - before >= 4


def test_what_the_engine_dropped_and_one_that_was_killed(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "r"
    lost = metrics.READINGS_LOST._value.get()
    run(engine, path, [heartbeat(0), reading(1, of=probe, dropped=5)], [probe])
    assert gaps(engine) == [("dropped", None, None, 5, False)]
    assert metrics.READINGS_LOST._value.get() - lost == 5
    with engine.begin() as connection:
        connection.execute(text("UPDATE reading_instances SET state = 'live'"))
    age(engine)
    run(engine, path, [heartbeat(0, instance=OTHER)], [probe])
    with engine.begin() as connection:
        # The end of a file waits for nobody; a topic has none.
        connection.execute(text("UPDATE reading_instances SET state = 'live'"))
        connection.execute(
            text("UPDATE reading_instances SET last_seen_at = first_seen_at WHERE instance = :i"), {"i": INSTANCE}
        )
        watch(connection, ["readings"], timedelta(seconds=60))
    assert [gap[0] for gap in gaps(engine)] == ["dropped", "new_instance"]


def test_silence_is_measured_where_somebody_listens(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    assert measured(engine, "readings_silent") == []
    run(engine, tmp_path / "r", [heartbeat(0)], [probe])
    # The file was read to its end: nothing is waited for.
    assert measured(engine, "readings_silent") == [0]
    with engine.begin() as connection:
        connection.execute(text("UPDATE reading_instances SET state = 'live'"))
    age(engine, 300)
    assert measured(engine, "readings_silent")[0] == pytest.approx(300, abs=30)
    run(engine, tmp_path / "s", [heartbeat(1, closed=True)], [probe])
    assert measured(engine, "readings_silent") == [0]


# Answers that are still running.


def test_a_running_answer_is_flagged_once_and_its_end_counts_nothing_twice(
    engine: Engine, probe: Probe, tmp_path: Path
) -> None:
    path = tmp_path / "r"
    lines = [
        reading(0, "calm", 0.1, of=probe, kind="partial"),
        reading(1, "hot", 0.2, of=probe, kind="partial"),
        reading(2, "hot", 1.2, of=probe, kind="partial"),
        reading(3, "hot", 1.3, of=probe, kind="partial"),
    ]
    run(engine, path, lines, [probe])
    (row,) = stored(engine, schema.messages)
    assert (row["message_id"], row["status"], row["partial"]) == ("hot", "scored", "running")
    assert row["notes"] == ["partial reading: the answer was still running"]
    assert alerts(engine) == [("drift", "shop", "served", 1, "warning")]
    run(engine, path, [reading(4, "hot", 1.25, of=probe), reading(5, "calm", 0.1, of=probe)], [probe])
    assert sorted(row["message_id"] for row in stored(engine, schema.messages)) == ["calm", "hot", "hot"]
    assert alerts(engine) == [("drift", "shop", "served", 1, "warning")]
    counted = [(row["score"], row["flagged"]) for row in scores(engine) if not row["shadow"]]
    assert counted == [(1.25, True), (0.1, False)]
    assert stored(engine, schema.reading_partials) == []
    assert gaps(engine) == []


def test_an_end_that_is_worse_is_told(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "r"
    run(engine, path, [reading(0, "hot", 1.2, of=probe, kind="partial"), reading(1, "hot", 3.5, of=probe)], [probe])
    assert alerts(engine) == [("drift", "shop", "served", 2, "critical")]


def test_an_end_below_the_threshold_leaves_the_alert(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "r"
    run(engine, path, [reading(0, "hot", 1.2, of=probe, kind="partial")], [probe])
    run(engine, path, [reading(1, "hot", 0.2, of=probe)], [probe])
    assert alerts(engine) == [("drift", "shop", "served", 1, "warning")]
    assert [row["shadow"] for row in scores(engine)] == [None, None]
    # The id comes again, for another request: it is a new one.
    run(engine, path, [reading(2, "hot", 1.2, of=probe)], [probe])
    assert alerts(engine)[0][3] == 2


def test_answers_with_one_id_are_told_apart_by_the_engines_own(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    """The id is the client's: a decoy with the same one hides nothing."""
    path = tmp_path / "r"
    lines = [
        reading(0, "same", 1.2, of=probe, kind="partial", request="same-1"),
        reading(1, "same", 1.3, of=probe, kind="partial", request="same-2"),
        reading(2, "same", 1.4, of=probe, kind="partial", request="same-2"),
    ]
    run(engine, path, lines, [probe])
    assert alerts(engine) == [("drift", "shop", "served", 2, "warning")]
    run(engine, path, [reading(3, "same", 0.1, of=probe, request="same-3")], [probe])
    assert len(stored(engine, schema.reading_partials)) == 2
    run(engine, path, [reading(4, "same", 1.2, of=probe, request="same-1")], [probe])
    (left,) = stored(engine, schema.reading_partials)
    assert left["message_id"] == "same-2"
    assert alerts(engine)[0][3] == 2


# What a worker may say, by how far it has read.


class Stream:
    """A source as `EngineReadings` sees it."""

    name = "readings"
    lag_unit = "messages"
    finished = False
    trouble: str | None = None
    lag: int | None = 0


def test_a_worker_that_is_behind_or_has_just_started_counts_no_holes(engine: Engine) -> None:
    stream: Any = Stream()
    with engine.begin() as connection:
        track(connection, [Published("readings", INSTANCE, n, "vllm", dropped=n) for n in (0, 2)])
    age(engine)
    watcher = EngineReadings(engine, stream, 60.0, behind_from=8)
    watcher.look()
    assert gaps(engine) == [("dropped", None, None, 2, False), ("hole", 1, 1, 1, True)]
    watcher._began -= 61
    stream.lag = 9
    watcher.look()
    stream.lag = 0
    # What it has to read before it knows takes a while.
    watcher.look()
    assert gaps(engine)[1] == ("hole", 1, 1, 1, True)
    age(engine, 61)
    watcher.look()
    assert gaps(engine)[1] == ("hole", 1, 1, 1, False)


def test_a_short_grace_calls_no_engine_dead_between_its_heartbeats(engine: Engine) -> None:
    stream: Any = Stream()
    with engine.begin() as connection:
        track(connection, [Published("readings", INSTANCE, 0, "vllm"), Published("readings", OTHER, 0, "vllm")])
    watcher = EngineReadings(engine, stream, 2.0, behind_from=8)
    watcher.look()
    for seconds, state in ((20, "live"), (20, "replaced")):
        age(engine, seconds)
        with engine.begin() as connection:
            track(connection, [Published("readings", OTHER, seconds, "vllm", known=True)])
        watcher.look()
        found = {row["instance"]: row["state"] for row in stored(engine, schema.reading_instances)}
        assert found == {INSTANCE: state, OTHER: "live"}


def test_a_greeting_that_was_not_stored_is_said_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stream: Any = Stream()
    with engine.begin() as connection:
        track(connection, [Published("readings", INSTANCE, 0, "vllm"), Published("readings", OTHER, 0, "vllm")])
    watcher = EngineReadings(engine, stream, 60.0, behind_from=8)
    watcher.look()
    age(engine)
    with monkeypatch.context() as patch:
        patch.setattr("storage.readings.count_gaps", lambda *_, **__: 1 / 0)
        watcher.look()
    with engine.begin() as connection:
        track(connection, [Published("readings", OTHER, 1, "vllm")])
    watcher.look()
    assert {row["state"] for row in stored(engine, schema.reading_instances)} == {"live"}


# The text that came from elsewhere.


def test_the_text_of_a_gateways_log(engine: Engine, chat: ChatModel, probe: Probe, tmp_path: Path) -> None:
    run(engine, tmp_path / "r", [reading(0, "both", of=probe), reading(1, "alone", of=probe)], [probe])
    gateway = tmp_path / "g"
    gateway.write_text(json.dumps(wire("both", "what was asked", tenant="shop")) + "\n")
    run_worker(engine, chat, [probe], gateway, privacy="full")
    other = tmp_path / "o"
    other.write_text(json.dumps(wire("alone", "of somebody else", tenant="bank")) + "\n")
    run_worker(engine, chat, [probe], other, privacy="full")
    with engine.connect() as connection:
        found = {row["message_id"]: same_message_elsewhere(connection, row) for row in _readings(connection)}
    assert found["both"] is not None
    assert (found["both"]["source"], found["both"]["has_text"]) == ("stream", True)
    # Another tenant's message is not it, whatever its id says.
    assert found["alone"] is None


def _readings(connection: Any) -> list[Any]:
    query = select(schema.messages).where(schema.messages.c.format == "reading")
    return list(connection.execute(query).mappings())


# From the command line.


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "probes: name the cards that the engine reads by"),
        ({"probes": ("p",), "source": "spool"}, "source: readings come from kafka:TOPIC or from files"),
        ({"probes": ("p",), "mitigate": "flagged"}, "mitigate: cannot be had with readings"),
        ({"probes": ("p",), "sample_after_seconds": 3}, "sample_after_seconds: cannot be had with readings"),
        ({"probes": ("p",), "adapter": "a"}, "adapter: cannot be had with readings"),
        ({"probes": ("p",), "format": "awry"}, "format: cannot be had with readings"),
    ],
)
def test_settings_that_need_a_model_or_a_text(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_readings(load_settings(readings=True, **given))


def test_the_doctor_loads_no_model(tiny_folder: Path) -> None:
    card = str(tiny_folder / "drift.json")
    (found,) = model(load_settings(readings=True, probes=(card,), model="/nowhere"))
    assert (found.part, "no model is loaded" in found.found) == ("probes", True)
    (found,) = model(load_settings(readings=True))
    assert "name the cards that the engine reads by" in found.found


def test_a_replay_has_nothing_to_read() -> None:
    with pytest.raises(SettingsError, match="readings: there is no text to score again"):
        check_readings(load_settings(readings=True, probes=("p",)), live=False)


def test_what_a_publisher_writes_is_what_a_worker_reads(engine: Engine, probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "r"
    publisher = Publisher(PublisherOptions(str(path), "vllm 0.32.0", model="served"))
    for n in range(40):
        value = {"name": probe.name, "digest": probe.digest, "value": float(n == 7) * 2, "tokens": 3}
        publisher.put(lambda n=n, value=value: {"kind": "final", "id": f"r{n}", "probes": [value]})  # type: ignore[misc]
    assert publisher.close()
    run(engine, path, [], [probe])
    assert len(rows(engine)) == 40
    assert [row["offset"] for row in scores(engine) if row["flagged"]] == [rows(engine)["r7"]["offset"]]
    (row,) = stored(engine, schema.reading_instances)
    assert (row["instance"], row["state"], row["highest"]) == (publisher.instance, "closed", 41)
    assert gaps(engine) == []
    made = loads(path.read_bytes().splitlines()[1])
    assert isinstance(made, Reading)
    assert as_json(made)["model"] == "served"
