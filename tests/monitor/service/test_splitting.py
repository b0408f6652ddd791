"""A row that the database refuses costs its own message, and no other one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from monitor.errors import TooManyDeadError
from monitor.stream.sinks.jsonl import JsonLinesSink
from probes.model.load import ChatModel
from storage import schema
from storage.errors import RowRefusedError
from tests.support.rows import counts, stored
from tests.support.stream.worker import lines, make_probe, run_worker, wire

SECRET = "the words of the sender"
FLAGGING = -1e6


def change(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def trigger(engine: Engine, table: str, condition: str, does: str, *, deferred: bool = False) -> None:
    """An owner's trigger: where the new row is as `condition` says, it does that."""
    kind = "CONSTRAINT TRIGGER" if deferred else "TRIGGER"
    when = f"AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED" if deferred else f"BEFORE INSERT ON {table}"
    change(
        engine,
        "CREATE OR REPLACE FUNCTION owners_rule() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF {condition} THEN {does}; END IF; RETURN NEW; END $$",
        f"CREATE {kind} owners_rule {when} FOR EACH ROW EXECUTE FUNCTION owners_rule()",
    )


def rows(engine: Engine) -> dict[str, dict[str, Any]]:
    return {row["message_id"]: row for row in stored(engine, schema.messages)}


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return lines(tmp_path / "t", [wire(f"m{n}", f"{SECRET} {n}", tenant="shop") for n in range(8)])


@pytest.mark.parametrize("bad", [{"m0"}, {"m7"}, {"m3", "m4"}, {f"m{n}" for n in range(8)}])
def test_refused_messages_are_failed_rows_and_dead_letters_and_the_others_are_scored(
    engine: Engine, chat: ChatModel, tmp_path: Path, path: Path, bad: set[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """From JSON lines to rows, verdicts, dead letters, one alert and its notification."""
    refused = ", ".join(f"'{name}'" for name in sorted(bad))
    check = f"status = 'failed' OR message_id NOT IN ({refused})"
    change(engine, f"ALTER TABLE messages ADD CONSTRAINT owners_check CHECK ({check})")
    verdicts, dead = tmp_path / "verdicts", tmp_path / "dead"
    probe = make_probe(chat, threshold=FLAGGING)
    run = run_worker(engine, chat, [probe], path, verdicts=verdicts, dead_letters=dead, privacy="full")

    good = {f"m{n}" for n in range(8)} - bad
    found = rows(engine)
    assert {name for name, row in found.items() if row["status"] == "scored"} == good
    for name in bad:
        reason = found[name]["reason"]
        assert found[name]["status"] == "failed"
        assert reason.startswith("storing failed: CheckViolation SQLSTATE 23514 messages")
        assert reason.endswith(" owners_check")
        assert (found[name]["tenant"], found[name]["text"]) == ("shop", None)
    assert run.tally.by_status == {k: v for k, v in (("scored", len(good)), ("failed", len(bad))) if v}
    assert (run.tally.messages, run.tally.flagged) == (8, len(good))
    assert counts(engine)["scores"] == len(good)
    # Every message has one line, which says what is in its row.
    said = written(verdicts)
    assert {(line["id"], line["status"]) for line in said} == {(n, found[n]["status"]) for n in found}
    assert len(said) == 8
    assert [line["id"] for line in written(dead)] == sorted(bad)
    assert [alert["count"] for alert in stored(engine, schema.alerts)] == ([len(good)] if good else [])
    assert run.tally.alerts == len(stored(engine, schema.outbox)) == bool(good)
    assert SECRET not in dead.read_text() + verdicts.read_text() + capfd.readouterr().err


def test_the_stream_goes_on_and_nothing_is_read_again(
    engine: Engine, chat: ChatModel, tmp_path: Path, path: Path
) -> None:
    change(engine, "ALTER TABLE messages ADD CONSTRAINT owners_check CHECK (status = 'failed' OR message_id <> 'm1')")
    probe = make_probe(chat, threshold=FLAGGING)
    run_worker(engine, chat, [probe], path, batch_messages=4)
    before = counts(engine)
    again = run_worker(engine, chat, [probe], path, batch_messages=4)
    # As with any failed message: tried again when it comes again, and one row for ever.
    assert again.tally.known == 7
    assert counts(engine) == before
    change(engine, "ALTER TABLE messages DROP CONSTRAINT owners_check")
    run_worker(engine, chat, [probe], path)
    assert (rows(engine)["m1"]["status"], rows(engine)["m1"]["reason"]) == ("scored", None)
    assert [alert["count"] for alert in stored(engine, schema.alerts)] == [8]


@pytest.mark.parametrize(
    ("table", "does", "names"),
    [
        ("scores", "RAISE EXCEPTION 'no: %', NEW", "RaiseException SQLSTATE P0001"),
        ("scores", "NEW.score := 1 / 0", "DivisionByZero SQLSTATE 22012"),
        ("scores", "PERFORM 32768::smallint", "NumericValueOutOfRange SQLSTATE 22003"),
        ("scores", "PERFORM '\"\\u0000\"'::jsonb", "UntranslatableCharacter SQLSTATE 22P05"),
        ("scores", "RAISE program_limit_exceeded", "ProgramLimitExceeded SQLSTATE 54000"),
        ("window_scores", "RAISE check_violation", "CheckViolation SQLSTATE 23514"),
        ("alerts", "RAISE check_violation", "CheckViolation SQLSTATE 23514"),
        ("outbox", "RAISE check_violation", "CheckViolation SQLSTATE 23514"),
    ],
)
def test_whichever_row_of_a_message_is_refused(
    engine: Engine, chat: ChatModel, tmp_path: Path, table: str, does: str, names: str
) -> None:
    """A score, a window, an alert or its notification: the message has a reason, and the others have all of theirs."""
    own = {"scores": 'NEW."offset" = 0', "window_scores": 'NEW."offset" = 0', "alerts": "NEW.tenant = 'bad'"}
    trigger(engine, table, own.get(table, "NEW.body::text LIKE '%bad%'"), does)
    prompt = "y" * 300 if table == "window_scores" else "hello"
    path = lines(tmp_path / "t", [wire("m0", prompt, tenant="bad"), *[wire(f"m{n}", tenant="good") for n in (1, 2)]])
    verdicts = tmp_path / "verdicts"
    probe = make_probe(chat, threshold=FLAGGING)
    run_worker(engine, chat, [probe], path, verdicts=verdicts)
    found = rows(engine)
    assert found["m0"]["reason"] == f"storing failed: {names}"
    assert [found[name]["status"] for name in ("m1", "m2")] == ["scored"] * 2
    assert {row["offset"] for row in stored(engine, schema.scores)} == {found["m1"]["offset"], found["m2"]["offset"]}
    assert [(alert["tenant"], alert["count"]) for alert in stored(engine, schema.alerts)] == [("good", 2)]
    last = {line["id"]: line["status"] for line in written(verdicts)}
    assert last == {"m0": "failed", "m1": "scored", "m2": "scored"}


def test_what_is_refused_at_the_commit_is_known_before_a_line_is_written(
    engine: Engine, chat: ChatModel, tmp_path: Path, path: Path
) -> None:
    trigger(
        engine, "messages", "NEW.message_id = 'm2' AND NEW.status <> 'failed'", "RAISE check_violation", deferred=True
    )
    verdicts = tmp_path / "verdicts"
    run_worker(engine, chat, [make_probe(chat)], path, verdicts=verdicts)
    assert Counter(line["status"] for line in written(verdicts)) == {"scored": 7, "failed": 1}


def test_a_failed_row_that_is_refused_is_stored_without_labels(
    engine: Engine, chat: ChatModel, tmp_path: Path, path: Path
) -> None:
    change(engine, "ALTER TABLE messages ADD CONSTRAINT owners_check CHECK (message_id <> 'm5')")
    dead = tmp_path / "dead"
    run_worker(engine, chat, [make_probe(chat)], path, dead_letters=dead)
    (bare,) = [row for row in stored(engine, schema.messages) if row["status"] == "failed"]
    assert bare["reason"].endswith(" owners_check")
    assert (bare["message_id"], bare["tenant"]) == (None, None)
    assert [(line["id"], line["tenant"]) for line in written(dead)] == [("m5", "shop")]
    assert counts(engine)["messages"] == 8


def test_where_the_failed_row_is_refused_too_the_worker_stops_and_says_what_to_do(
    engine: Engine, chat: ChatModel, path: Path
) -> None:
    change(engine, 'ALTER TABLE messages ADD CONSTRAINT owners_check CHECK ("offset" = 0)')
    with pytest.raises(
        RowRefusedError, match=r"failed row of the message at stream.* was refused .*23514.*owners_check"
    ):
        run_worker(engine, chat, [make_probe(chat)], path)
    assert [row["message_id"] for row in stored(engine, schema.messages)] == ["m0"]
    # Nothing was lost: what was not committed is read again once the owner has mended it.
    change(engine, "ALTER TABLE messages DROP CONSTRAINT owners_check")
    run_worker(engine, chat, [make_probe(chat)], path)
    assert {row["status"] for row in rows(engine).values()} == {"scored"}
    assert counts(engine)["messages"] == 8


def test_a_worker_that_dies_between_two_parts_counts_nothing_twice(
    engine: Engine, chat: ChatModel, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(engine, "ALTER TABLE messages ADD CONSTRAINT owners_check CHECK (status = 'failed' OR message_id <> 'm6')")
    probe = make_probe(chat, threshold=FLAGGING)
    write = JsonLinesSink.write

    def dies(self: JsonLinesSink, found: Any) -> None:
        write(self, found)
        if any(line.value["id"] == "m4" for line in found):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(JsonLinesSink, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            run_worker(engine, chat, [probe], path, verdicts=tmp_path / "verdicts")
    assert [alert["count"] for alert in stored(engine, schema.alerts)] == [4]
    again = run_worker(engine, chat, [probe], path, verdicts=tmp_path / "verdicts")
    assert again.tally.known == 4
    assert [alert["count"] for alert in stored(engine, schema.alerts)] == [7]
    assert len(stored(engine, schema.outbox)) == 1
    assert {line["id"] for line in written(tmp_path / "verdicts")} == {f"m{n}" for n in range(8)}


def test_refused_messages_count_towards_the_limit(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    """A rule of the owner's that refuses nearly everything is no matter of single messages."""
    change(engine, "ALTER TABLE messages ADD CONSTRAINT owners_check CHECK (status = 'failed')")
    path = lines(tmp_path / "t", [wire(f"m{n}") for n in range(120)])
    with pytest.raises(TooManyDeadError, match=r"^dead_letter_limit: scoring or storing failed for"):
        run_worker(engine, chat, [make_probe(chat)], path, batch_messages=20)
    assert {row["status"] for row in stored(engine, schema.messages)} == {"failed"}
    change(engine, "ALTER TABLE messages DROP CONSTRAINT owners_check")
    run_worker(engine, chat, [make_probe(chat)], path, batch_messages=20)
    assert Counter(row["status"] for row in stored(engine, schema.messages)) == {"scored": 120}
