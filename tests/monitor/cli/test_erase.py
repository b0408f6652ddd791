"""`awry erase`: a dry run, then everywhere, with a worker that reads the same again; the spool; after a restore."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from monitor.stream.spool import SpoolSource, SpoolWriter, encode_line
from probes.model.load import ChatModel
from storage import schema
from storage.coordinates import Coordinates
from storage.known import erased_payloads
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.cli import Invoke, message_of
from tests.support.rows import counts, dump, stored
from tests.support.stream.worker import lines, make_probe, run_worker, wire

WHO = "canary-4711"


def traffic(path: Path) -> Path:
    prompts = [(WHO if n % 2 else "bob") for n in range(10)]
    return lines(path, [wire(f"m{n}-{who}", f"{who} says {n}", user=who, tenant="t") for n, who in enumerate(prompts)])


@pytest.fixture
def filled(engine: Engine, chat: ChatModel, tmp_path: Path) -> Path:
    """Ten messages with texts, every one of them flagged."""
    path = traffic(tmp_path / "traffic.jsonl")
    run_worker(engine, chat, [make_probe(chat, threshold=-1e9)], path, privacy="full")
    assert counts(engine)["messages"] == 10
    return path


def test_a_dry_run_changes_nothing(engine: Engine, filled: Path, run: Invoke) -> None:
    before = dump(engine)
    done = run("erase", "--user", WHO)
    assert done.exit_code == 0, done.exception
    assert "awry: messages: 5 rows would be erased or changed\n" in done.stderr
    assert "awry: nothing was changed; --yes erases it\n" in done.stderr
    assert "awry: not reached: the source (topics, files)" in done.stderr
    assert dump(engine) == before
    assert "nothing is stored of this user" in run("erase", "--user", "nobody").stderr


def test_read_again_it_does_not_come_back(engine: Engine, chat: ChatModel, filled: Path, run: Invoke) -> None:
    done = run("erase", "--user", WHO, "--yes", "--as", "dana")
    assert done.exit_code == 0, done.exception
    assert WHO not in dump(engine)
    probe = make_probe(chat, threshold=-1e9)
    again = run_worker(engine, chat, [probe], filled, privacy="full")
    assert (again.tally.messages, again.tally.known, again.tally.flagged) == (10, 10, 0)
    # By a probe that has not scored them, as a replay has.
    other = run_worker(engine, chat, [make_probe(chat, "late", threshold=-1e9)], filled, privacy="full")
    assert other.tally.flagged == 5
    assert WHO not in dump(engine)
    assert counts(engine)["messages"] == 5
    start, end = [row for row in audit_rows(engine) if row.action.startswith("erase")]
    assert (start.who, start.after) == ("dana", {"by": "user"})
    assert end.after["rows"]["messages"] == 5
    assert str(stored(engine, schema.erasures)[0]["id"]) == end.after["erasure"]


def test_after_a_restore_it_is_repeated(
    engine: Engine, filled: Path, run: Invoke, tmp_path: Path, chat: ChatModel
) -> None:
    record = tmp_path / "erased.jsonl"
    assert run("erase", "--user", WHO, "--yes", "--record", record).exit_code == 0
    assert WHO not in record.read_text()
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE erasures, erased_messages"))
    run_worker(engine, chat, [make_probe(chat)], filled, privacy="full")
    assert WHO in dump(engine)
    said = run("erase", "--replay", record).stderr
    assert "1 erasures and 5 tombstones are recorded" in said
    assert "1 names that were erased are here again" in said
    assert WHO in dump(engine)
    assert run("erase", "--replay", record, "--yes").exit_code == 0
    assert WHO not in dump(engine)


@pytest.mark.parametrize("record", ["/nope/x", "/proc/x", "pipe", "file/x", "."])
def test_nothing_is_erased_whose_record_cannot_be_written(
    engine: Engine, filled: Path, run: Invoke, record: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    before = dump(engine)
    path = tmp_path / record
    assert message_of(run("erase", "--user", WHO, "--yes", "--record", path)).startswith("record: ")
    assert dump(engine) == before


def test_a_record_from_before_is_read_and_said_to_be_one(
    engine: Engine, filled: Path, run: Invoke, tmp_path: Path
) -> None:
    record = tmp_path / "erased.jsonl"
    assert run("erase", "--user", WHO, "--yes", "--record", record).exit_code == 0
    said = "whether it is whole cannot be told"
    assert said not in run("erase", "--replay", record).stderr
    record.write_text("\n".join(record.read_text().splitlines()[1:-1]))
    done = run("erase", "--replay", record)
    assert said in done.stderr
    assert "1 erasures and 5 tombstones are recorded" in done.stderr


def test_what_waits_in_the_spool(engine: Engine, run: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "spool"
    payloads = [
        json.dumps({"id": f"s{n}", "prompt": f"of {who}", "user": who}).encode() for n, who in enumerate([WHO, "bob"])
    ]
    both = json.dumps([{"id": "a", "prompt": "x", "user": WHO}, {"id": "b", "prompt": "y", "user": "bob"}]).encode()
    writer = SpoolWriter(folder, 1 << 20)
    writer.append([encode_line(each) for each in (*payloads, both)])
    source = SpoolSource(folder, follow=False, look_only=True)
    places = [record.at for record in source.poll(10, 1)]
    source.close()
    done = run("erase", "--user", WHO, "--yes", "--state-dir", tmp_path / "state")
    assert done.exit_code == 0, done.exception
    assert "1 lines of the spool erased; 1 messages are in lines with others'" in done.stderr
    source = SpoolSource(folder, follow=False, look_only=True)
    left = source.poll(10, 1)
    source.close()
    assert [record.at for record in left] == places
    assert [record.tombstone for record in left] == [True, False, False]
    assert left[1].payload == payloads[1]
    with engine.connect() as connection:
        found = erased_payloads(connection, [(at.source, at.partition, at.offset) for at in places])
    digest = hashlib.sha256(both).hexdigest()
    assert (places[2].source, places[2].partition, places[2].offset, 0, digest) in found
    assert len(found) == 2
    writer.close()


def test_an_erased_message_is_gone_for_everybody(engine: Engine, filled: Path, run: Invoke) -> None:
    (row,) = [r for r in stored(engine, schema.messages) if r["message_id"] == f"m1-{WHO}"]
    at = Coordinates(row["source"], row["partition"], row["offset"])
    run("erase", "--id", f"m1-{WHO}", "--yes")
    assert message_of(run("messages", "show", str(at))) == (
        f"coordinates: the message {at} was erased; its source may still have it"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "erase: give one of --user, --tenant, --id, --conversation, --replay; or --record alone"),
        (("--user", "a", "--id", "b"), "erase: give one of --user"),
        (("--user", ""), "user: is empty"),
        (("--replay", "none"), "replay: cannot read none (No such file or directory)"),
        (("--replay", "/dev/null"), "replay: the file has no erasure; give one that awry erase --record wrote"),
        (("--user", "a", "--yes", "--record", "/nope/x"), "record: there is no folder /nope; make it, or choose"),
    ],
)
def test_mistakes(engine: Engine, run: Invoke, arguments: tuple[str, ...], said: str) -> None:
    assert message_of(run("erase", *arguments)).startswith(said)
