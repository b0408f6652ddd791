"""`awry messages show` prints a message; `awry replay` scores past traffic without touching live offsets and alerts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from monitor.cli.app import app, known_error
from monitor.errors import SettingsError
from monitor.service.policy import Policy, Tally
from monitor.service.replay import run_replay
from monitor.service.scoring import BatchScorer
from monitor.service.worker import Worker
from monitor.settings import Settings
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.lookup import fetch_record
from monitor.stream.kafka.source import KafkaSource
from probes.card import Probe, load_probe, save_probe
from probes.model.load import ChatModel, load_chat_model
from probes.progress import Progress, silent
from storage import schema
from storage.coordinates import Coordinates
from storage.writer import register_probe
from tests.conftest import url_of
from tests.support.rows import counts, stored
from tests.support.stream.kafka import committed, delete_before, new_topic, produce
from tests.support.stream.worker import MAX_TOKENS, checkpoint, lines, make_probe, run_worker, scores_of, wire

AWRY = str(Path(sys.executable).with_name("awry"))
PROMPTS = [f"message number {n} " + "and so on " * (n % 3) for n in range(12)]
LIVE = "live-group"


# One message.


def show(cluster: Cluster, coordinates: object) -> Result:
    # A state folder without a database: the stream alone is asked.
    runner = CliRunner(env={"AWRY_KAFKA_BOOTSTRAP": cluster.bootstrap, "AWRY_STATE_DIR": "none"})
    return runner.invoke(app, ["messages", "show", str(coordinates)])


def refused(done: Result) -> str:
    assert isinstance(done.exception, Exception)
    message = known_error(done.exception)
    assert message is not None, done.exception
    return message


def test_a_message_is_shown_with_its_time_and_headers(cluster: Cluster) -> None:
    topic = new_topic(cluster, 2)
    payload = json.dumps({"id": "a", "prompt": "schön \U0001f600"}).encode()
    produce(cluster, topic, [b"{}"] * 3, partition=1)
    produce(cluster, topic, [payload], partition=1, key=b"k", headers=[("h", b"\xff")], timestamp_ms=1_772_366_400_000)
    produce(cluster, topic, [b"{}"], partition=1)
    done = show(cluster, f"{topic}/1/3")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout) == json.loads(payload)
    assert "schön \U0001f600" in done.stdout
    assert f"awry: {topic}/1/3, 2026-03-01 12:00:00 UTC, key b'k'\nawry: h: b'\\xff'\n" in done.stderr


@pytest.mark.parametrize(("payload", "shown"), [(b"no json", "no json\n"), (None, "\n"), (b"[1]", "[\n  1\n]\n")])
def test_what_is_no_message_is_shown_as_it_is(cluster: Cluster, payload: bytes | None, shown: str) -> None:
    topic = new_topic(cluster, 1)
    produce(cluster, topic, [payload], key=b"k")
    assert show(cluster, f"{topic}/0/0").stdout == shown


def test_each_message_of_a_batch_is_found_at_its_own_offset(cluster: Cluster) -> None:
    """A batch is fetched whole; the one message that was asked for is given."""
    topic = new_topic(cluster, 1)
    produce(cluster, topic, [b"%d" % n for n in range(50)])
    assert [fetch_record(cluster, Coordinates(topic, 0, n)).value for n in (0, 17, 49)] == [b"0", b"17", b"49"]


@pytest.mark.parametrize(
    ("offset", "named"),
    [
        (1, "is not in the topic any more (it holds 3 to 4)"),
        (5, "is not in the topic yet (it ends at 4)"),
        (2**62, "is not in the topic yet (it ends at 4)"),
    ],
)
def test_an_offset_that_is_not_there(cluster: Cluster, offset: int, named: str) -> None:
    topic = new_topic(cluster, 1)
    produce(cluster, topic, [b"x"] * 5)
    delete_before(cluster, topic, 3)
    assert refused(show(cluster, f"{topic}/0/{offset}")) == f"coordinates: {topic}/0/{offset} {named}"


def test_a_topic_or_partition_that_is_not_there(cluster: Cluster, topic: str) -> None:
    for name, partition in (("nothing-such", 0), (topic, 3)):
        expected = f"coordinates: there is no topic {name} with a partition {partition}"
        assert refused(show(cluster, f"{name}/{partition}/0")) == expected


def test_no_cluster(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["messages", "show", "t/0/0", "--state-dir", str(tmp_path)])
    assert refused(done).startswith("kafka_bootstrap: not set, and no embedded Kafka runs in ")


# Many messages again.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with the probe `drift`, and the probe `second`; both flag everything."""
    made = tmp_path_factory.mktemp("tiny")
    checkpoint(made)
    save_probe(second(load_chat_model(str(made / "tiny-chat"), made)), made)
    return made


@pytest.fixture(scope="module")
def chat(folder: Path) -> ChatModel:
    return load_chat_model(str(folder / "tiny-chat"), folder)


def second(chat: ChatModel) -> Probe:
    return make_probe(chat, "second", sites=["final"], threshold=-1e6)


def replay(
    folder: Path,
    engine: Engine,
    start_from: str,
    *,
    stored: bool = False,
    progress: Progress = silent,
    **more: Any,
) -> Tally:
    """With the probe `second`."""
    settings = Settings(
        probes=(str(folder / "second.json"),),
        model=str(folder / "tiny-chat"),
        database_url=url_of(engine),
        state_dir=folder,
        logs="json",
        listen="127.0.0.1:0",
        kafka_group=LIVE,
        start_from=start_from,
        **more,
    )
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return run_replay(settings, progress, stored=stored)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def replay_command(folder: Path, engine: Engine, bootstrap: str, *more: str) -> dict[str, Any]:
    """The same as a command; its last line of log."""
    command = [
        AWRY,
        "replay",
        "--probe",
        folder / "second.json",
        "--model",
        folder / "tiny-chat",
        "--database-url",
        url_of(engine),
        "--state-dir",
        folder,
        "--logs",
        "json",
        "--listen",
        "127.0.0.1:0",
        *more,
    ]
    named = {"AWRY_KAFKA_BOOTSTRAP": bootstrap, "AWRY_KAFKA_GROUP": LIVE}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **named}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    last: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    assert last["event"] == "finished"
    return last


def run_live(cluster: Cluster, topic: str, engine: Engine, chat: ChatModel) -> None:
    """A live worker with the probe `drift`, which alerts, up to the present end of the topic."""
    probe = make_probe(chat, threshold=-1e6)
    with engine.begin() as connection:
        register_probe(connection, probe.digest, probe.name, 1, "hash", {})
    scorer = BatchScorer(chat, [probe], token_budget=256, max_tokens=MAX_TOKENS, skip_over_long=False)
    policy = Policy(("drift",), "tiny-chat", destinations=("console",), batch_messages=5)
    with closing(KafkaSource(cluster, [topic], LIVE, start_from="earliest", until_end=True)) as source:
        Worker(source, scorer, engine, policy).run()


def test_a_replay_scores_beside_the_live_probe_and_touches_nothing_else(
    folder: Path, chat: ChatModel, cluster: Cluster, topic: str, engine: Engine
) -> None:
    messages = [json.dumps(wire(f"m{n}", p, tenant="shop")).encode() for n, p in enumerate(PROMPTS)]
    produce(cluster, topic, messages[:10])
    run_live(cluster, topic, engine, chat)
    # Two that live has not read yet; one that is none.
    produce(cluster, topic, [*messages[10:], b"{broken"])
    live, before = committed(cluster, LIVE), counts(engine)
    assert (before["messages"], before["scores"], before["alerts"], before["outbox"]) == (10, 10, 1, 1)
    alerts = stored(engine, schema.alerts)

    source = f"kafka:{topic}"
    end = replay_command(folder, engine, cluster.bootstrap, "--from", "earliest", "--source", source)
    assert (end["records"], end["scored"], end["invalid"], end["flagged"], end["alerts"]) == (13, 12, 1, 12, 0)
    after = counts(engine)
    assert after == before | {"messages": 13, "scores": 10 + 12}
    assert stored(engine, schema.alerts) == alerts
    assert committed(cluster, LIVE) == live
    ids = {(r["partition"], r["offset"]): r["message_id"] for r in stored(engine, schema.messages)}
    found = {
        ids[r["partition"], r["offset"]]: r["score"] for r in stored(engine, schema.scores) if r["probe"] == "second"
    }
    expected = scores_of(chat, second(chat), PROMPTS)
    assert found == {f"m{n}": pytest.approx(score, abs=1e-4) for n, score in enumerate(expected)}

    # The same words find their place; other words read all again and know it all.
    kafka: dict[str, Any] = {"source": source, "kafka_bootstrap": cluster.bootstrap}
    assert replay(folder, engine, "earliest", **kafka).messages == 0
    again = replay(folder, engine, "2020-01-01", **kafka)
    assert (again.messages, again.known) == (13, 13)
    assert counts(engine) == after
    assert committed(cluster, LIVE) == live


def test_a_replay_of_what_has_not_come_yet_is_refused(folder: Path, engine: Engine) -> None:
    with pytest.raises(SettingsError, match=r"^start_from: a replay from latest has nothing to read"):
        replay(folder, engine, "latest", source="kafka:t")


def test_stored_texts_are_scored_again_and_join_their_messages(
    folder: Path, chat: ChatModel, engine: Engine, tmp_path: Path
) -> None:
    path = lines(tmp_path / "t", [*(wire(f"m{n}", p, response="yes") for n, p in enumerate(PROMPTS)), b"{broken"])
    run_worker(engine, chat, [make_probe(chat)], path, privacy="full")
    before = counts(engine)
    kept = stored(engine, schema.messages)
    said: list[str] = []
    assert replay(folder, engine, "2020-01-01", stored=True, progress=said.append).by_status == {"scored": 12}
    assert not any(line.startswith("nothing was scored") for line in said)
    assert counts(engine) == before | {"scores": 24}
    assert stored(engine, schema.messages) == kept
    assert replay(folder, engine, "earliest", stored=True, progress=said.append).known == 12
    digest = load_probe(folder / "second.json").digest
    assert said[-1] == f"nothing was scored: all 12 messages have a score by second version 1 ({digest}) already"
    assert counts(engine) == before | {"scores": 24}
    assert replay(folder, engine, "2100-01-01", stored=True, progress=said.append).messages == 0
    assert "no text is stored" in said[-1]


def test_texts_that_were_not_kept_cannot_be_scored_again(
    folder: Path, chat: ChatModel, engine: Engine, tmp_path: Path
) -> None:
    run_worker(engine, chat, [make_probe(chat)], lines(tmp_path / "t", [wire("m")]), privacy="sha256")
    assert replay(folder, engine, "earliest", stored=True).messages == 0
