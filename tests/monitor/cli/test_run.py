"""`awry run` in processes of its own: mistakes are one line, a signal drains, a run stores and leaks nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from monitor.readings.publisher import Publisher, PublisherOptions
from probes.card import load_probe
from storage import schema
from tests.support.cli import AWRY, awry, environment, refused
from tests.support.rows import counts, dump, stored
from tests.support.stream.worker import lines, wire

pytestmark = pytest.mark.slow

CANARY = "CANARYTEXT"


def of_run(folder: Path, url: str, *more: str | Path) -> tuple[str | Path, ...]:
    return (
        "run",
        "--model",
        folder / "tiny-chat",
        "--probe",
        folder / "drift.json",
        "--database-url",
        url,
        "--state-dir",
        folder,
        "--logs",
        "json",
        *more,
    )


def test_a_bad_setting() -> None:
    assert refused(awry("run", "--privacy", "all")).startswith("awry: privacy (flag): ")


def test_unknown_probe(tiny_folder: Path, postgres_database: str) -> None:
    done = awry(*of_run(tiny_folder, postgres_database, "--probe", "nothing-such"))
    assert "'nothing-such' is not known; shipped are" in refused(done)


def test_unknown_model_folder(tiny_folder: Path, postgres_database: str) -> None:
    done = awry(*of_run(tiny_folder, postgres_database, "--model", tiny_folder / "nowhere"))
    line = refused(done)
    assert "awry: model: " in line
    assert "nowhere" in line


def test_missing_adapter(tiny_folder: Path, postgres_database: str) -> None:
    done = awry(*of_run(tiny_folder, postgres_database, "--adapter", "nothing-such"))
    assert "adapter: 'nothing-such' is neither shipped" in refused(done)


def test_readings_of_an_engine_need_no_model(
    tiny_folder: Path, engine: Engine, postgres_database: str, tmp_path: Path
) -> None:
    card = tiny_folder / "drift.json"
    probe = {"name": "drift", "digest": load_probe(card).digest, "value": 0.5, "tokens": 3}
    path = tmp_path / "readings.jsonl"
    publisher = Publisher(PublisherOptions(str(path), "vllm 0.32.0", model="served"))
    publisher.put(lambda: {"kind": "final", "id": "r1", "tenant": "shop", "probes": [probe]})
    publisher.put(lambda: {"kind": "final", "id": "r2", "probes": [probe | {"digest": "ab" * 16}]})
    assert publisher.close()
    of = ("run", "--database-url", postgres_database, "--state-dir", tmp_path, "--logs", "json", "--source", path)
    assert "probes: name the cards that the engine reads by" in refused(awry(*of, "--readings"))
    more = ("--readings", "--probe", card)
    assert "mitigate: cannot be had with readings" in refused(awry(*of, *more, "--mitigate", "all"))
    done = awry(*of, *more)
    assert done.returncode == 0, done.stderr
    found = {row["message_id"]: row["status"] for row in stored(engine, schema.messages)}
    assert found == {"r1": "scored", "r2": "invalid"}
    assert [(row["tenant"], row["model"], row["count"]) for row in stored(engine, schema.alerts)] == [
        ("shop", "served", 1)
    ]
    # Without the flag they are no messages, and the reason says what to do.
    other = tmp_path / "copy.jsonl"
    other.write_bytes(path.read_bytes())
    done = awry(*of_run(tiny_folder, postgres_database, "--source", other))
    assert done.returncode == 0, done.stderr
    reasons = {row["reason"] for row in stored(engine, schema.messages) if row["source"] == "copy.jsonl"}
    assert reasons == {"payload: a reading of an engine; read it with awry run --readings"}


def test_a_run_stores_and_leaks_nothing(
    tiny_folder: Path, engine: Engine, postgres_database: str, tmp_path: Path
) -> None:
    """The whole way in a process, with answers; then the outbox and the list of alerts."""
    path = lines(
        tmp_path / "stream.jsonl",
        [
            *(wire(f"m{n}", f"{CANARY} {n}", tenant="[/shop]", response=f"{CANARY}!") for n in range(5)),
            f'{{"id": "bad", "prompt": "{CANARY}'.encode(),
            {"id": "role", "messages": [{"role": "tool", "content": CANARY}]},
        ],
    )
    more = ("--source", path, "--mitigate", "flagged", "--answers-out", tmp_path / "answers")
    first = awry(*of_run(tiny_folder, postgres_database, *more))
    assert first.returncode == 0, first.stderr
    end = json.loads(first.stderr.splitlines()[-1])
    assert (end["event"], end["scored"], end["invalid"], end["flagged"]) == ("finished", 6, 1, 6)
    after = counts(engine)
    assert after == {"messages": 7, "scores": 6, "head_scores": 0, "answers": 6, "alerts": 2, "outbox": 2}
    assert len((tmp_path / "answers").read_text().splitlines()) == 6
    sent = awry("send", "--once", "--database-url", postgres_database)
    assert sent.returncode == 0, sent.stderr
    assert "alert.opened threshold:drift:[/shop]:tiny-chat count=5" in sent.stdout
    listed = awry("alerts", "--database-url", postgres_database)
    assert "threshold:drift:[/shop]:tiny-chat" in listed.stdout, listed.stderr
    assert "0 pending, 2 delivered, 0 dead" in listed.stdout
    for done in (first, sent, listed):
        assert CANARY not in done.stdout + done.stderr
    assert CANARY not in dump(engine)


def test_an_interrupt_drains_and_exits_0(tiny_folder: Path, engine: Engine, postgres_database: str) -> None:
    program = subprocess.Popen(
        [AWRY, *map(str, of_run(tiny_folder, postgres_database, "--source", "-"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert program.stdin is not None
    try:
        program.stdin.write(json.dumps(wire("m1")) + "\n")
        program.stdin.flush()
        until = time.monotonic() + 100
        while counts(engine)["messages"] < 1:
            assert program.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        # The stream is still open: only the signal can end the run.
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == 0
        assert program.stderr is not None
        said = program.stderr.read()
    finally:
        if program.poll() is None:
            program.kill()
        program.communicate()
    assert json.loads(said.splitlines()[-1])["event"] == "finished"
    assert "Traceback" not in said
    assert [r["message_id"] for r in stored(engine, schema.messages)] == ["m1"]
