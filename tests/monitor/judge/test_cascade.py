"""A worker with a judge, from JSON lines to the tables: a tiny model, an endpoint on loopback, a real PostgreSQL."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from sqlalchemy import Engine, text

from monitor.errors import SettingsError
from monitor.judge import judging, upkeep
from monitor.service import bootstrap
from monitor.service.policy import Tally
from monitor.settings import Settings, load_settings
from monitor.stream.jsonl import JsonLines
from monitor.telemetry import logs, metrics
from probes.card import Probe
from probes.model.load import ChatModel
from storage import schema
from storage.judgements import waiting
from storage.queries.judged import asked_in_a_day, recent_scores
from tests.support.alerts.alert_rows import all_alerts, all_outbox
from tests.support.judge_server import HARMFUL, HARMLESS, JudgeServer, Said, judge_server
from tests.support.rows import counts, dump, stored
from tests.support.stream.worker import lines, make_probe, wire

CANARY = "CANARYTEXT"
RESOLVING = '[[threshold]]\nname = "threshold"\njudge_resolves = true\n'
HOLDING = RESOLVING + 'judge_holds = "20s"\n'


@pytest.fixture(scope="module")
def one_server() -> Iterator[JudgeServer]:
    with judge_server() as started:
        yield started


@pytest.fixture
def server(one_server: JudgeServer) -> JudgeServer:
    one_server.forget()
    one_server.says = by_text
    return one_server


def by_text(request: dict[str, Any]) -> Said:
    """Harmful is what says BAD."""
    return HARMFUL if "BAD" in request["messages"][-1]["content"] else HARMLESS


def flagging(chat: ChatModel, name: str = "drift", **more: Any) -> Probe:
    """A probe that flags everything."""
    return make_probe(chat, name, threshold=-1e6, **more)


def passing(chat: ChatModel, name: str = "drift", **more: Any) -> Probe:
    """A probe that flags nothing."""
    return make_probe(chat, name, threshold=1e6, **more)


def run(
    engine: Engine,
    chat: ChatModel,
    probes: Iterable[Probe],
    server: JudgeServer | None,
    messages: list[dict[str, Any]],
    folder: Path,
    *,
    rules: str | None = None,
    live: bool = True,
    **given: Any,
) -> Tally:
    """These messages through one worker; every score is in the band unless `given` says otherwise."""
    loaded = list(probes)
    values: dict[str, Any] = {"state_dir": folder, "probes": [p.name for p in loaded], "batch_messages": 8}
    if server is not None:
        values |= {"judge_url": server.url, "judge_model": "small"}
        values |= {"judge_bands": {p.name: (-1e9, 1e9) for p in loaded if p.name not in given.get("shadow", ())}}
    if rules is not None:
        (folder / "rules.toml").write_text(rules)
        values["rules_file"] = folder / "rules.toml"
    return run_with(engine, chat, loaded, load_settings(**values | given), messages, folder, live=live)


def run_with(
    engine: Engine,
    chat: ChatModel,
    probes: list[Probe],
    settings: Settings,
    messages: list[dict[str, Any]],
    folder: Path,
    *,
    live: bool = True,
) -> Tally:
    path = lines(folder / "traffic", messages)
    with (
        closing(JsonLines(str(path), name="stream", max_bytes=1_000_000)) as source,
        bootstrap.building_worker(settings, engine, chat, probes, source, lambda *_: None, live=live) as worker,
    ):
        return worker.run()


def judged(engine: Engine) -> dict[str, tuple[str | None, str | None]]:
    """(what the judge said, why) by message."""
    ids = {(r["source"], r["offset"]): str(r["message_id"]) for r in stored(engine, schema.messages)}
    rows = stored(engine, schema.scores)
    return {ids[r["source"], r["offset"]]: (r["judge"], r["judge_reason"]) for r in rows}


def talk(*said: str, **more: Any) -> list[dict[str, Any]]:
    return [wire(f"m{n}", each, tenant="shop", **more) for n, each in enumerate(said)]


def counted(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_message_that_the_probe_missed_is_raised(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    before = counted("awry_judge_verdicts_total", probe="drift", verdict="harmful", probe_said="pass")
    run(engine, chat, [passing(chat)], server, talk("hello", "something BAD", "good day"), tmp_path)
    assert judged(engine) == {
        "m0": ("harmless", "confidence 0.90"),
        "m1": ("harmful", "confidence 0.80"),
        "m2": ("harmless", "confidence 0.90"),
    }
    rows = stored(engine, schema.scores)
    # The row keeps both verdicts.
    assert [r["flagged"] for r in rows] == [False] * 3
    assert {r["judge_by"] for r in rows} == {f"small at {server.url.split('/')[2]}"}
    assert all(r["judge_at"] >= r["created_at"] for r in rows)
    (alert,) = all_alerts(engine)
    assert (alert.dedup_key, alert.severity, alert.state) == (
        "threshold:drift:shop:SmolLM2-135M-Instruct",
        "warning",
        "open",
    )
    assert alert._mapping["count"] == 1
    assert [m["message_id"] for m in stored(engine, schema.alert_messages)] == ["m1"]
    assert [row.event for row in all_outbox(engine)] == ["alert.opened"]
    assert counted("awry_judge_verdicts_total", probe="drift", verdict="harmful", probe_said="pass") == before + 1


def test_a_harmless_verdict_marks_the_row_and_nothing_else(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    run(engine, chat, [flagging(chat)], server, talk("hello", "good day"), tmp_path)
    assert {state for state, _ in judged(engine).values()} == {"harmless"}
    assert [r["flagged"] for r in stored(engine, schema.scores)] == [True, True]
    (alert,) = all_alerts(engine)
    assert (alert.state, alert._mapping["count"]) == ("open", 2)


def test_a_rule_may_let_the_judge_resolve(engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path) -> None:
    def sent_meanwhile(request: dict[str, Any]) -> Said:
        with engine.begin() as connection:
            connection.execute(text("UPDATE outbox SET page_id = id, formed_at = now(), delivered_at = now()"))
        return by_text(request)

    server.says = sent_meanwhile
    messages = [*talk("hello", "good day"), wire("b0", "hello", tenant="bad"), wire("b1", "BAD", tenant="bad")]
    run(engine, chat, [flagging(chat)], server, messages, tmp_path, rules=RESOLVING)
    states = {alert.tenant: (alert.state, alert.resolved_by) for alert in all_alerts(engine)}
    by = f"judge small at {server.url.split('/')[2]}"
    assert states == {"shop": ("resolved", by), "bad": ("open", None)}
    # Who was told of it is told of its end.
    of_shop = [row.event for row in all_outbox(engine) if row.body["data"]["tenant"] == "shop"]
    assert of_shop == ["alert.opened", "alert.resolved"]
    (ended,) = [r for r in stored(engine, schema.audit) if r["action"] == "resolve"]
    assert (ended["who"], ended["via"], ended["after"]["state"]) == (by, "rule", "resolved")


def test_what_is_held_is_never_sent_where_the_judge_finds_it_harmless(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    messages = [*talk("hello", "good day"), wire("b0", "BAD", tenant="bad")]
    run(engine, chat, [flagging(chat)], server, messages, tmp_path, rules=HOLDING)
    assert {alert.tenant: alert.state for alert in all_alerts(engine)} == {"shop": "resolved", "bad": "open"}
    (row,) = all_outbox(engine)
    assert (row.body["data"]["tenant"], row.event) == ("bad", "alert.opened")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT due_at <= now() FROM outbox")).scalar_one()


def test_what_is_held_is_sent_when_the_judge_is_away(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    """While it is asked, the notification waits; without a verdict it is due."""
    due_while_asked: list[bool] = []

    def look(request: dict[str, Any]) -> Said:
        with engine.connect() as connection:
            due_while_asked.append(connection.execute(text("SELECT due_at <= now() FROM outbox")).scalar_one())
        return Said("no idea")

    server.says = look
    run(engine, chat, [flagging(chat)], server, talk("hello"), tmp_path, rules=HOLDING)
    assert due_while_asked == [False]
    assert judged(engine) == {"m0": ("failed", "garbage")}
    with engine.connect() as connection:
        assert connection.execute(text("SELECT due_at <= now() FROM outbox")).scalar_one()


def test_what_somebody_has_taken_on_stays_theirs(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    def acknowledge(request: dict[str, Any]) -> Said:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alerts SET state = 'acknowledged', acknowledged_at = now()"))
        return HARMLESS

    server.says = acknowledge
    run(engine, chat, [flagging(chat)], server, talk("hello"), tmp_path, rules=RESOLVING)
    assert [alert.state for alert in all_alerts(engine)] == ["acknowledged"]


def test_the_next_turn_of_what_the_judge_resolved_is_told(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    """A conversation that began harmlessly must not be mute for a day."""
    first = [wire("t0", "hello", tenant="shop", conversation_id="c")]
    then = [*first, wire("t1", "hello, and BAD", tenant="shop", conversation_id="c")]
    run(engine, chat, [flagging(chat)], server, first, tmp_path, rules=RESOLVING)
    run(engine, chat, [flagging(chat)], server, then, tmp_path, rules=RESOLVING)
    assert sorted(alert.state for alert in all_alerts(engine)) == ["open", "resolved"]


def test_scores_outside_of_the_band_are_not_asked_about(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    bands = {"drift": (-1e9, -1e8)}
    run(engine, chat, [passing(chat)], server, talk("hello", "BAD"), tmp_path, judge_bands=bands)
    assert judged(engine) == {"m0": (None, None), "m1": (None, None)}
    assert server.requests == []


def test_text_goes_to_the_judge_and_nowhere_else(
    engine: Engine,
    chat: ChatModel,
    server: JudgeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure()
    server.says = [Said("nonsense"), Said(status=500), HARMFUL]
    messages = talk(f"{CANARY} one", f"{CANARY} two", f"{CANARY} three", response=f"{CANARY} answer")
    run(engine, chat, [passing(chat)], server, messages, tmp_path, privacy="none", judge_api_key="geheim")
    assert all(CANARY in asked for asked in server.texts)
    # The probe reads prompts: the response is none of the judge's business.
    assert not any("answer" in json.loads(t.split("\n")[1])["content"] for t in server.texts)
    printed = capsys.readouterr()
    held = dump(engine) + printed.out + printed.err + generate_latest(metrics.REGISTRY).decode()
    assert CANARY not in held
    assert "geheim" not in held
    on_disk = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "traffic"]
    assert not any(CANARY.encode() in p.read_bytes() for p in on_disk)


def test_a_probe_of_responses_sends_them(engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path) -> None:
    probe = passing(chat, aggregation="mean(response)")
    run(engine, chat, [probe], server, talk("hello", response="it is BAD"), tmp_path)
    assert judged(engine)["m0"][0] == "harmful"


def test_a_program_may_judge(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    program = tmp_path / "judge.py"
    program.write_text("import json, sys\nprint('yes' if 'BAD' in json.load(sys.stdin)['conversation'] else 'no')\n")
    more: dict[str, Any] = {"judge_command": [sys.executable, str(program)], "judge_bands": {"drift": (-1e9, 1e9)}}
    run(engine, chat, [passing(chat)], None, talk("hello", "BAD"), tmp_path, **more)
    assert judged(engine) == {"m0": ("harmless", None), "m1": ("harmful", None)}
    assert {r["judge_by"] for r in stored(engine, schema.scores)} == {f"command {Path(sys.executable).name}"}
    (row,) = [r for r in stored(engine, schema.audit) if r["action"] == "judge"]
    assert row["after"]["host"] == "command"


def test_the_audit_says_to_whom_text_goes(engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path) -> None:
    run(engine, chat, [passing(chat)], server, talk("hello"), tmp_path, judge_budget_per_day=7)
    (row,) = [r for r in stored(engine, schema.audit) if r["action"] == "judge"]
    host = server.url.split("/")[2]
    assert row["after"] == {
        "judge": f"small at {host}",
        "host": host,
        "probes": ["drift"],
        "questions_a_day": 7,
        "characters_a_message": 12_000,
    }


def test_a_judge_that_is_down_leaves_the_probes_verdicts(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure()
    server.says = [Said(status=503)]
    before = counted("awry_judge_not_asked_total", reason="judge down")
    messages = talk(*(f"hello {n}" for n in range(12)))
    tally = run(engine, chat, [flagging(chat)], server, messages, tmp_path, judge_wait_seconds=10.0, judge_seconds=5.0)
    assert (tally.flagged, tally.by_status) == (12, {"scored": 12})
    states = judged(engine)
    assert set(states.values()) <= {("failed", "server error"), ("not asked", "judge down")}
    assert ("not asked", "judge down") in states.values()
    (alert,) = all_alerts(engine)
    assert (alert.state, alert._mapping["count"]) == ("open", 12)
    # It was left alone after a few failures, and one warning says so.
    assert len(server.requests) < 12
    warnings = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "judge is down" in line]
    assert [warning["reason"] for warning in warnings] == ["server error"]
    assert counted("awry_judge_circuit_open") == 1
    assert counted("awry_judge_not_asked_total", reason="judge down") > before


def test_a_full_queue_is_told_on_the_row(engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path) -> None:
    messages = talk(*(f"hello {n}" for n in range(8)))
    run(engine, chat, [passing(chat)], server, messages, tmp_path, judge_queue_messages=3)
    said = list(judged(engine).values())
    assert said.count(("not asked", "queue full")) == 5
    assert sum(state == "harmless" for state, _ in said) == 3


def test_the_budget_is_of_all_workers_and_runs(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    first = talk(*(f"hello {n}" for n in range(4)))
    run(engine, chat, [passing(chat)], server, first, tmp_path, judge_budget_per_day=3)
    assert list(judged(engine).values()).count(("not asked", "budget spent")) == 1
    more = [*first, *(wire(f"n{n}", f"more {n}", tenant="shop") for n in range(2))]
    run(engine, chat, [passing(chat)], server, more, tmp_path, judge_budget_per_day=4)
    # Three were asked before; one more is left.
    assert sorted(judged(engine)[f"n{n}"][0] or "" for n in range(2)) == ["harmless", "not asked"]
    assert len(server.requests) == 4


def test_what_is_delivered_again_is_asked_about_once(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    messages = talk("hello", "BAD")
    run(engine, chat, [passing(chat)], server, messages, tmp_path)
    # With another probe all is scored again, and the first one's scores are known.
    both = [passing(chat), passing(chat, "second", sites=["final"])]
    run(engine, chat, both, server, messages, tmp_path, judge_bands={"drift": (-1e9, 1e9), "second": (1e8, 1e9)})
    assert len(server.requests) == 2
    assert counts(engine)["alerts"] == 1
    assert counted("awry_judge_waiting") == 0


def test_verdict_lines_say_whether_the_judge_is_asked(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    """They are written before it answers: what it says is in the row alone."""
    out = tmp_path / "verdicts"
    both = [passing(chat), passing(chat, "second", sites=["final"])]
    bands = {"drift": (-1e9, 1e9), "second": (1e8, 1e9)}
    messages = talk("hello", "BAD", "and more", "and again")
    run(
        engine, chat, both, server, messages, tmp_path, judge_bands=bands, judge_queue_messages=2, verdicts_out=str(out)
    )
    said = [json.loads(line) for line in out.read_text().splitlines()]
    states = [{"drift": state} for state in ("waiting", "waiting", "not asked", "not asked")]
    assert [line["judge"] for line in said] == states
    assert {line["decision"] for line in said} == {"pass"}
    drift = [r["judge"] for r in stored(engine, schema.scores) if r["probe"] == "drift"]
    assert drift == ["harmless", "harmful", "not asked", "not asked"]


def test_verdict_lines_without_a_judge_or_for_what_is_known_name_none(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    out, messages = tmp_path / "verdicts", talk("hello", "BAD")
    run(engine, chat, [passing(chat)], None, messages[:1], tmp_path, verdicts_out=str(out))
    run(engine, chat, [passing(chat)], server, messages, tmp_path)
    # With another probe both are scored again: the second one's score alone is new, and is asked about.
    both = [passing(chat), passing(chat, "second", sites=["final"])]
    run(engine, chat, both, server, messages, tmp_path, verdicts_out=str(out))
    said = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line.get("judge") for line in said] == [None, {"second": "waiting"}, {"second": "waiting"}]


def test_the_same_text_is_asked_about_once(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    run(engine, chat, [passing(chat)], server, talk(*["BAD as ever"] * 5), tmp_path, judge_threads=1)
    assert len(server.requests) == 1
    said = list(judged(engine).values())
    assert said.count(("harmful", "same text as before")) == 4
    assert said.count(("harmful", "confidence 0.80")) == 1
    with engine.connect() as connection:
        assert asked_in_a_day(connection) == 1
    assert all_alerts(engine)[0]._mapping["count"] == 5


def test_probes_in_shadow_are_asked_about_only_by_name_and_open_nothing(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    probes = [passing(chat), passing(chat, "quiet", sites=["final"])]
    more: dict[str, Any] = {"shadow": ["quiet"], "judge_bands": {p.name: (-1e9, 1e9) for p in probes}}
    run(engine, chat, probes, server, talk("BAD"), tmp_path, **more)
    assert {r["probe"]: r["judge"] for r in stored(engine, schema.scores)} == {"drift": "harmful", "quiet": None}
    run(engine, chat, probes, server, [*talk("BAD"), wire("n", "more BAD")], tmp_path, judge_probes=["quiet"], **more)
    last = stored(engine, schema.scores)[-2:]
    assert {r["probe"]: r["judge"] for r in last} == {"drift": None, "quiet": "harmful"}
    assert {alert.probe for alert in all_alerts(engine)} == {"drift"}


def test_a_replay_asks_nobody(engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path) -> None:
    run(engine, chat, [passing(chat)], server, talk("BAD"), tmp_path, live=False)
    assert server.requests == []
    assert judged(engine) == {"m0": (None, None)}


def test_rows_of_a_worker_that_is_gone_are_not_asked_about(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    run(engine, chat, [passing(chat)], server, talk("hello", "BAD"), tmp_path)
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET judge = 'waiting', judge_at = NULL, judge_reason = NULL"))
    server.forget()
    run(engine, chat, [passing(chat)], server, talk("hello", "BAD"), tmp_path)
    # A worker beside it may still ask about them.
    assert {state for state, _ in judged(engine).values()} == {"waiting"}
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET created_at = now() - interval '1 hour'"))
    run(engine, chat, [passing(chat)], server, talk("hello", "BAD"), tmp_path)
    assert set(judged(engine).values()) == {("not asked", "worker stopped")}
    with engine.connect() as connection:
        assert waiting(connection, connection.execute(text("SELECT now()")).scalar_one(), 10) == []


def test_a_worker_that_is_told_to_stop_does_not_wait_for_a_judge_that_hangs(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "END_SECONDS", 0.2)
    ended = threading.Event()
    server.says = [Said(before=lambda: ended.wait(30))]
    settings = load_settings(
        state_dir=tmp_path,
        judge_url=server.url,
        judge_model="m",
        judge_bands={"drift": (-1e9, 1e9)},
        judge_threads=1,
    )
    path = lines(tmp_path / "traffic", talk("one", "two", "three"))
    try:
        with (
            closing(JsonLines(str(path), name="stream", max_bytes=4096)) as source,
            bootstrap.building_worker(settings, engine, chat, [passing(chat)], source, lambda *_: None) as worker,
        ):
            worker.run()
            worker.stop()
    finally:
        ended.set()
    assert set(judged(engine).values()) == {("not asked", "worker stopped")}


def test_bands_follow_the_traffic_and_the_budget(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path
) -> None:
    probe = make_probe(chat)
    run(engine, chat, [probe], None, talk(*(f"message {n}" for n in range(600))), tmp_path, batch_messages=256)
    found = sorted(abs(r["score"] - probe.card.threshold) for r in stored(engine, schema.scores))
    with engine.connect() as connection:
        recent = recent_scores(connection, "drift", probe.digest, upkeep.NEWEST)
    assert len(recent.scores) == 600
    # 600 within an hour is 14,400 a day; the budget pays for a tenth of them.
    band = upkeep.Sizing(probe, 1440).band(recent)
    assert sum(distance <= band.high - probe.card.threshold for distance in found) == 60
    assert upkeep.Sizing(probe, 20_000).band(recent).holds(1e9)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"judge_probes": ["nothing"]}, "judge_probes: nothing not among the loaded probes drift"),
        ({"judge_bands": {"nothing": (0, 1)}}, "judge_bands: nothing not among"),
        ({"judge_questions": {"nothing": "Is it?"}}, "judge_questions: nothing not among"),
        ({"judge_bands": {}, "shadow": ["drift"]}, "judge_probes: all probes are in shadow"),
    ],
)
def test_mistakes_are_named(
    engine: Engine, chat: ChatModel, server: JudgeServer, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        run(engine, chat, [passing(chat)], server, talk("hello"), tmp_path, **given)
