"""`awry check` as people type it: files, standard input, topics, and what CI gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitor.stream.kafka.client import Cluster
from monitor.stream.spool import SpoolSource, SpoolWriter, encode_line
from tests.support.cli import awry, invoke, message_of, refused
from tests.support.stream.kafka import committed, new_topic, produce
from tests.support.stream.renderings_otlp import RENDERINGS, Conversation, present_attributes, traces

SECRET = "ZQSECRET"
SAID = Conversation([{"role": "system", "content": SECRET}, {"role": "user", "content": SECRET}], SECRET)
OWN = {"id": "m1", "tenant": "acme", "user": "ann", "messages": SAID.messages, "response": SECRET, "note": SECRET}


def file_of(folder: Path, *payloads: bytes) -> Path:
    path = folder / "traffic.jsonl"
    path.write_bytes(b"\n".join(payloads) + b"\n")
    return path


def test_a_file_that_is_readable(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": SECRET}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    file = file_of(
        tmp_path,
        json.dumps(OWN).encode(),
        RENDERINGS["litellm"](SAID),
        json.dumps(OWN | {"messages": [{"role": "user", "content": parts}], "timestamp": "soon"}).encode(),
    )
    done = invoke("check", file)
    assert done.exit_code == 0, done.output
    first, second, third = done.stdout.splitlines()
    assert first.startswith("traffic.jsonl/0/0  ")
    assert "2 turns (1 system, 1 user), 16 characters, response, 1 attribute dropped" in first
    assert "id=m1  tenant=acme  user=ann" in first
    assert "  litellm  " in second
    assert "unread: 1 image  note: timestamp: dropped, not a time" in third
    assert "3 messages in 3 records: 3 readable, 0 skipped, 0 invalid; 1 with notes; formats: " in done.stderr
    assert SECRET not in done.output


def test_exit_status_1_where_one_is_invalid(tmp_path: Path) -> None:
    request = json.dumps({"resourceSpans": []}).encode()
    file = file_of(tmp_path, json.dumps(OWN).encode(), b"{" + SECRET.encode(), b"", request)
    done = invoke("check", file)
    assert done.exit_code == 1
    assert "invalid: payload: not JSON at character 1" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("  -  no message")
    assert "2 messages in 3 records: 1 readable, 0 skipped, 1 invalid" in done.stderr
    assert SECRET not in done.output


def test_a_document_over_several_lines_is_told_once(tmp_path: Path) -> None:
    for value in (OWN, [OWN]):
        file = file_of(tmp_path, json.dumps(value, indent=2).encode())
        said = "source: one JSON document over several lines; awry reads one message a line (jq -c .)"
        assert message_of(invoke("check", file)) == said
    # A line that was cut off is no such document.
    done = invoke("check", file_of(tmp_path, b"{", json.dumps(OWN).encode()))
    assert "2 messages in 2 records: 1 readable, 0 skipped, 1 invalid" in done.stderr


def test_the_spool_of_a_worker_that_runs(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "spool"
    assert message_of(invoke("check", "spool", "--state-dir", tmp_path / "state")).startswith("source: cannot read ")
    spool = SpoolWriter(folder, 1 << 20)
    for number in range(3):
        spool.append([encode_line(json.dumps(OWN | {"id": f"m{number}"}).encode())])
        # Complete segments, which only the worker may delete.
        spool.roll()
    worker = SpoolSource(folder)
    try:
        done = invoke("check", "spool", "--state-dir", tmp_path / "state", "--json")
        assert done.exit_code == 0, done.output
        assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["m0", "m1", "m2"]
        # The worker still gets them all.
        records = worker.poll(10, 0.5)
        assert len(records) == 3
        looking = SpoolSource(folder, follow=False, look_only=True)
        worker.commit(records)
        while not looking.finished:  # segments that are gone meanwhile are passed over
            assert len(looking.poll(10, 0.1)) < 3
        looking.close()
    finally:
        worker.close()
        spool.close()


def test_skipped_is_no_mistake(tmp_path: Path) -> None:
    empty = json.dumps({"messages": [{"role": "user", "content": ""}], "id": "m2"}).encode()
    done = invoke("check", file_of(tmp_path, empty))
    assert done.exit_code == 0
    assert "skipped: nothing readable" in done.stdout
    assert "id=m2" in done.stdout


def test_json_is_one_object_a_line_without_text(tmp_path: Path) -> None:
    batch = json.dumps([OWN, OWN | {"id": "m2"}]).encode()
    done = invoke("check", file_of(tmp_path, batch, b"[]"), "--json")
    assert done.exit_code == 1
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert (first["message"], second["message"]) == ("traffic.jsonl/0/0", "traffic.jsonl/0/0.1")
    assert (first["id"], second["id"], first["status"], first["turns"]) == ("m1", "m2", "readable", 2)
    assert first["roles"] == {"system": 1, "user": 1}
    assert (first["response"], first["attributes_dropped"]) == (True, 1)
    assert (third["status"], third["reason"]) == ("invalid", "payload: an empty array")
    assert SECRET not in done.output


def test_only_so_many(tmp_path: Path) -> None:
    done = invoke("check", file_of(tmp_path, *[json.dumps(OWN).encode()] * 500), "--limit", "300")
    assert len(done.stdout.splitlines()) == 300


def test_a_format_may_be_named(tmp_path: Path) -> None:
    file = file_of(tmp_path, json.dumps(OWN).encode())
    assert "  awry  " in invoke("check", file, "--format", "awry").stdout
    assert invoke("check", file, "--format", "otlp").exit_code in (0, 1)
    assert message_of(invoke("check", file, "--format", "nope")).startswith("format: nope is none of auto, ")


def test_a_mapping_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_of(tmp_path, b'{"log": {"q": "Hello", "who": "acme"}}')
    monkeypatch.setenv("AWRY_MAPPING", '{"prompt": "log.q", "tenant": "log.who"}')
    done = invoke("check", file)
    assert done.exit_code == 0
    assert "  mapping  1 turn (1 user), 5 characters, no response  tenant=acme" in done.stdout
    monkeypatch.setenv("AWRY_MAPPING", '{"prompt": "log["}')
    assert message_of(invoke("check", file)).startswith("mapping.prompt: 'log[' is no JMESPath expression")


def test_a_message_over_the_limit_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_MAX_MESSAGE_BYTES", "1024")
    done = invoke("check", file_of(tmp_path, json.dumps(OWN | {"prompt": "x" * 2000}).encode()))
    assert "over max_message_bytes" in done.stdout


def test_a_file_that_is_not_there() -> None:
    assert message_of(invoke("check", "none.jsonl")).startswith("source: ")


@pytest.mark.slow
def test_standard_input_in_a_process() -> None:
    done = awry("check", "-", stdin=json.dumps(OWN) + "\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stdin/0/0  ")
    assert "awry: 1 messages in 1 records: 1 readable" in done.stderr
    assert refused(awry("check", "kafka:")).endswith("kafka: needs the name of a topic: kafka:TOPIC")


@pytest.fixture
def on_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("AWRY_KAFKA_BOOTSTRAP", cluster.bootstrap)
    return cluster


def ids(*arguments: str) -> list[str]:
    done = invoke("check", *arguments, "--json")
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return [json.loads(line)["id"] for line in done.stdout.splitlines()]


def test_the_last_records_of_a_topic(on_cluster: Cluster) -> None:
    topic = new_topic(on_cluster)
    for number in range(30):
        value = json.dumps(OWN | {"id": f"m{number}"}).encode()
        produce(on_cluster, topic, [value], timestamp_ms=1_700_000_000_000 + number)
    assert ids(f"kafka:{topic}") == [f"m{n}" for n in range(10, 30)]
    assert ids(f"kafka:{topic}", "--limit", "3") == ["m27", "m28", "m29"]
    assert ids(f"kafka:{topic}", "--limit", "3", "--from", "earliest") == ["m0", "m1", "m2"]
    assert ids(f"kafka:{topic}", "--limit", "2", "--from", "2023-11-14T22:13:20.025Z") == ["m25", "m26"]


def test_a_batch_in_protobuf_a_tombstone_and_a_header(on_cluster: Cluster) -> None:
    topic = new_topic(on_cluster, partitions=1)
    batch = traces(*[present_attributes(SAID, strings=True)] * 2).SerializeToString()
    produce(on_cluster, topic, [batch, None, RENDERINGS["log records"](SAID)], key=b"k")
    done = invoke("check", f"kafka:{topic}")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [f"{topic}/0/0", f"{topic}/0/0.1", f"{topic}/0/2"]
    assert "3 messages in 2 records: 3 readable, 0 skipped, 0 invalid; 1 tombstones; formats: otlp 3" in done.stderr
    assert SECRET not in done.output
    assert committed(on_cluster, "awry") == {}


def test_a_topic_that_is_empty_or_not_there(on_cluster: Cluster) -> None:
    done = invoke("check", f"kafka:{new_topic(on_cluster)}")
    assert (done.exit_code, done.stdout) == (0, "")
    assert message_of(invoke("check", "kafka:none")).startswith("source: there is no topic none")
