"""`awry label --from-alerts`: what reviewers judged becomes labelled messages that `awry fit` reads."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from monitor.datasets import read_messages
from monitor.stream.wire import WireMessage
from storage.erase import erase
from storage.erasures import Target
from storage.partitions import utc_today
from storage.writer import BatchRows
from tests.support.alerts.alert_rows import all_alerts, flagged, open_alerts
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.cli import Invoke, message_of
from tests.support.rows import message, write

SECRET = "wumpelstilz"


def said(n: int) -> WireMessage:
    tool = {"type": "function", "function": {"name": "weather", "description": "of a town", "parameters": {}}}
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{SECRET} schön {n}"}]
    return WireMessage(f"m{n}", turns, f"reply {n}", [tool] if n % 2 else [])


def keep(engine: Engine, n: int, *, of: int | None = None, stored: bool = True, **names: Any) -> None:
    """Message `n` with the text of message `of`."""
    wire = said(n if of is None else of)
    row = message(n, f"s{n}", day=utc_today(), message_id=f"m{n}", text_sha256=wire.text_sha256, **names)
    write(engine, BatchRows([replace(row, text=wire.stored_text) if stored else row]))


def alert(engine: Engine, offsets: Sequence[int], *, probe: str = "drift", tenant: str = "shop") -> str:
    """One alert with these messages."""
    (opened,) = open_alerts(engine, [flagged(n, probe=probe, tenant=tenant) for n in offsets])
    return str(opened.alert_id)


def judge(run: Invoke, alert_id: str, verdict: str) -> None:
    assert run("alerts", "verdict", alert_id, verdict).exit_code == 0


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "labelled.jsonl"


def test_verdicts_become_labels_that_fit_reads(engine: Engine, run: Invoke, out: Path) -> None:
    for n in range(4):
        keep(engine, n)
    judge(run, alert(engine, [0], tenant="a"), "true")
    judge(run, alert(engine, [1], tenant="b"), "false")
    judge(run, alert(engine, [2], tenant="c"), "authorised_test")
    alert(engine, [3], tenant="d")

    done = run("label", "--from-alerts", "--since", "90d", "--out", out)
    assert done.exit_code == 0, repr(done.exception)
    read = read_messages(out, labelled=True)
    assert [(each.message.id, each.label) for each in read] == [("m0", True), ("m1", False), ("m2", True)]
    assert [each.message.stored_text for each in read] == [said(n).stored_text for n in range(3)]
    assert [row["verdict"] for row in rows(out)] == ["true", "false", "authorised_test"]
    assert "3 messages of 3 judged alerts, 2 misaligned (1 of authorised tests) and 1 aligned" in done.stderr
    assert SECRET not in done.output


def test_only_the_owner_can_read_the_file(engine: Engine, run: Invoke, out: Path) -> None:
    keep(engine, 0)
    judge(run, alert(engine, [0]), "true")
    out.write_text("before\n")
    out.chmod(0o644)
    assert run("label", "--from-alerts", "--out", out).exit_code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert len(rows(out)) == 1
    assert [path.name for path in out.parent.iterdir() if "labelled" in path.name] == [out.name]


def test_every_text_that_is_read_is_in_the_audit(engine: Engine, run: Invoke, out: Path) -> None:
    keep(engine, 0)
    keep(engine, 1, stored=False)
    judge(run, alert(engine, [0, 1]), "true")
    assert run("label", "--from-alerts", "--out", out, "--as", "anna").exit_code == 0
    read = [(row.who, row.via, row.after) for row in audit_rows(engine) if row.action == "message.read"]
    assert read == [("anna", "cli", {"message": {"source": "topic", "partition": 0, "offset": 0}})]


def test_nothing_is_written_where_reading_cannot_be_recorded(engine: Engine, run: Invoke, out: Path) -> None:
    keep(engine, 0)
    judge(run, alert(engine, [0]), "true")
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit ADD CONSTRAINT none CHECK (action <> 'message.read')"))
    try:
        failed = message_of(run("label", "--from-alerts", "--out", out))
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE audit DROP CONSTRAINT none"))
    assert failed.endswith("the database refuses to record who reads them")
    assert list(out.parent.glob("*labelled*")) == []


def test_a_text_that_is_not_stored_is_named(engine: Engine, run: Invoke, out: Path) -> None:
    for n in range(3):
        keep(engine, n, stored=n == 0)
    judge(run, alert(engine, [0, 1, 2]), "true")
    done = run("label", "--from-alerts", "--out", out)
    assert "2 messages left out: their text is not stored" in done.stderr
    assert "awry messages show gets it from the topic" in done.stderr
    assert "topic/0/1, topic/0/2" in done.stderr
    assert len(rows(out)) == 1


def test_a_message_is_there_once_and_disagreement_leaves_it_out(engine: Engine, run: Invoke, out: Path) -> None:
    for n in range(5):
        keep(engine, n)
    keep(engine, 5, of=0)  # a copy of a text
    keep(engine, 6, of=4)  # a copy that is judged the other way
    judge(run, alert(engine, [0, 1, 4, 5], probe="drift"), "true")
    judge(run, alert(engine, [0, 2], probe="other"), "authorised_test")
    judge(run, alert(engine, [1, 3, 6], probe="third"), "false")
    done = run("label", "--from-alerts", "--out", out)
    assert [(row["id"], row["label"]) for row in rows(out)] == [("m0", True), ("m2", True), ("m3", False)]
    assert "3 messages left out: they, or other messages with the same text, were judged both ways" in done.stderr
    assert "topic/0/1, topic/0/4, topic/0/6" in done.stderr
    assert "1 messages left out: their text is written already" in done.stderr
    assert "the alerts are of 3 probes (drift, other, third)" in done.stderr

    assert run("label", "--from-alerts", "--probe", "third", "--out", out).exit_code == 0
    assert [(row["id"], row["label"]) for row in rows(out)] == [("m1", False), ("m3", False), ("m6", False)]


def test_a_conversation_is_a_group_and_so_is_an_alert(engine: Engine, run: Invoke, out: Path) -> None:
    for n, conversation in enumerate(("c1", None, "c1", None, None)):
        keep(engine, n, conversation_id=conversation)
    judge(run, alert(engine, [0, 1], tenant="a"), "true")
    judge(run, alert(engine, [2, 3, 4], tenant="b"), "false")
    assert run("label", "--from-alerts", "--out", out).exit_code == 0
    groups = [each.group for each in read_messages(out, labelled=True)]
    assert groups[0] == groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3


def test_a_verdict_is_about_what_the_alert_had_by_then(engine: Engine, run: Invoke, out: Path) -> None:
    for n in range(2):
        keep(engine, n)
    judge(run, alert(engine, [0]), "true")
    open_alerts(engine, [flagged(1)])
    assert [row.count for row in all_alerts(engine)] == [2]
    assert run("label", "--from-alerts", "--out", out).exit_code == 0
    assert [row["id"] for row in rows(out)] == ["m0"]


def test_older_verdicts_and_none_at_all(engine: Engine, run: Invoke, out: Path) -> None:
    keep(engine, 0)
    judge(run, alert(engine, [0]), "true")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alerts SET verdict_at = verdict_at - interval '2 days'"))
        connection.execute(text("UPDATE alert_messages SET added_at = added_at - interval '2 days'"))
    said_none = message_of(run("label", "--from-alerts", "--since", "1d", "--out", out))
    assert said_none == (
        "from_alerts: 0 alerts with messages were judged in the last 1d, and none of their messages can be written; "
        "see awry alerts verdict"
    )
    assert not out.exists()
    assert run("label", "--from-alerts", "--since", "3d", "--out", out).exit_code == 0


def test_an_erased_message_is_not_there(engine: Engine, run: Invoke, out: Path) -> None:
    keep(engine, 0, user_id="ursula")
    keep(engine, 1)
    judge(run, alert(engine, [0, 1]), "true")
    erase(engine, Target("user", "ursula"))
    assert run("label", "--from-alerts", "--out", out).exit_code == 0
    assert [row["id"] for row in rows(out)] == ["m1"]


def test_mistakes_are_named(run: Invoke, out: Path, tmp_path: Path) -> None:
    for words, start in (
        ((), "messages: give a file of messages to be answered, or --from-alerts, and not both"),
        (("x.jsonl", "--from-alerts"), "messages: give a file of messages to be answered, or --from-alerts"),
        (("--from-alerts", "--model", "m"), "model: leave it out with --from-alerts"),
        (("--from-alerts", "--metric", "code"), "metric: leave it out with --from-alerts"),
        (("x.jsonl", "--since", "7d"), "since: is an option of --from-alerts"),
        (("--from-alerts", "--since", "soon"), "since: "),
        (("--from-alerts", "--out", tmp_path), f"out: {tmp_path} is a folder"),
    ):
        assert message_of(run("label", *words)).startswith(start), words
    assert message_of(run("label", "--from-alerts", "--out", "/dev/null")).startswith("out: /dev/null is no regular")
