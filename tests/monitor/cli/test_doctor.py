"""`awry doctor`: what is broken is found, with what to do; on a real PostgreSQL, Kafka and model."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.structs import OffsetAndMetadata
from sqlalchemy import Engine, text

from monitor.doctor.database import clock
from monitor.stream.kafka.client import Cluster
from monitor.telemetry.health import serving
from storage.partitions import ensure_ahead
from tests.conftest import url_of
from tests.support.cli import Invoke, invoke
from tests.support.stream.kafka import new_topic, produce, unique
from tests.support.stream.worker import lines

CANARY = "geheim"


@pytest.fixture(autouse=True)
def _free_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ports that nobody else on this machine uses, and a state folder of the test's own."""
    for name in ("AWRY_LISTEN", "AWRY_INGEST_LISTEN", "AWRY_SCORE_LISTEN"):
        monkeypatch.setenv(name, "127.0.0.1:0")
    monkeypatch.setenv("AWRY_STATE_DIR", str(tmp_path))


def doctor(*arguments: str | Path, model: bool = False) -> dict[str, list[dict[str, str]]]:
    """Findings by part; the exit status is checked."""
    done = invoke("doctor", "--json", *(() if model else ("--no-model",)), *arguments)
    document = json.loads(done.stdout)
    assert done.exit_code == ("ok", "warning", "fault").index(document["worst"])
    assert CANARY not in done.output
    parts: dict[str, list[dict[str, str]]] = {}
    for each in document["findings"]:
        assert bool(each["do"]) == (each["level"] != "ok"), each
        parts.setdefault(each["part"], []).append(each)
    return parts


def level(parts: dict[str, list[dict[str, str]]], part: str) -> str:
    (only,) = parts[part]
    return only["level"]


@pytest.fixture
def role(engine: Engine) -> Iterator[tuple[str, str]]:
    """A role without rights: its name, and the database's URL with it."""
    name = f"doctor_{uuid.uuid4().hex[:8]}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN"))
    yield name, engine.url.set(username=name).render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))


def test_all_is_well(run: Invoke, engine: Engine) -> None:
    ensure_ahead(engine)
    parts = doctor()
    assert {each["level"] for found in parts.values() for each in found if each["part"] != "role"} == {"ok"}
    assert level(parts, "role") == "warning"  # the tests' server has its superuser only
    assert set(parts) >= {"settings", "disk", "database", "encoding", "clock", "schema", "rights", "partitions"}
    assert set(parts) >= {"awry_reader", "port (listen)", "port (ingest_listen)", "destination console"}


def test_as_text_each_finding_is_a_line_and_what_to_do_another(run: Invoke) -> None:
    done = run("doctor", "--no-model")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "ok       settings: the environment has no fault"
    (at,) = [i for i, line in enumerate(lines) if line.startswith("warning  role: ")]
    assert lines[at + 1].startswith("         do: give awry a role of its own")


def test_without_a_database_nothing_is_started(tmp_path: Path) -> None:
    (only,) = doctor()["database"]
    assert only["level"] == "ok"
    assert "embedded" in only["found"]
    assert not (tmp_path / "postgres").exists()


def test_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_DATABASE_URL", f"postgresql://u:{CANARY}@127.0.0.1:1/awry?sslpassword={CANARY}")
    parts = doctor()
    assert level(parts, "database") == "fault"
    assert "pg_hba.conf" in parts["database"][0]["do"]
    assert "schema" not in parts


def test_a_schema_that_is_behind(empty_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_DATABASE_URL", url_of(empty_engine))
    (only,) = doctor()["schema"]
    assert only["level"] == "fault"
    assert "awry db upgrade" in only["do"]


def test_an_encoding_that_cannot_hold_all_names(postgres_url: str, engine: Engine) -> None:
    name = f"latin_{uuid.uuid4().hex[:8]}"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"))
        try:
            found = doctor("--database-url", engine.url.set(database=name).render_as_string(hide_password=False))
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    faults = [each for part in ("database", "encoding") for each in found.get(part, []) if each["level"] == "fault"]
    assert any("LATIN1" in each["found"] for each in faults)


def test_a_role_that_may_not_write(engine: Engine, role: tuple[str, str]) -> None:
    name, url = role
    (only,) = doctor("--database-url", url)["rights"]
    assert (only["level"], only["found"]) == ("fault", f"{name} may not read awry's tables")
    with engine.begin() as connection:
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}"))
    (only,) = doctor("--database-url", url)["rights"]
    assert only["level"] == "fault"
    assert only["found"].startswith(f"{name} lacks INSERT on ")
    assert f"GRANT these to {name}" in only["do"]
    with engine.begin() as connection:
        connection.execute(text(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {name}"))
    ensure_ahead(engine)
    parts = doctor("--database-url", url)
    assert level(parts, "rights") == "ok"
    assert "role" not in parts


def test_days_without_partitions(engine: Engine, role: tuple[str, str]) -> None:
    name, url = role
    with engine.begin() as connection:
        connection.execute(text(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {name}"))
        tables = connection.execute(
            text("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relname ~ '^messages_[0-9]{8}$'")
        )
        for (table,) in tables.all():
            connection.execute(text(f"DROP TABLE {table}"))
    (only,) = doctor("--database-url", url)["partitions"]
    assert only["level"] == "warning"
    assert f"not even for today; {name} may not make any" in only["found"]


def test_a_read_only_server(engine: Engine, role: tuple[str, str]) -> None:
    name, url = role
    with engine.begin() as connection:
        connection.execute(text(f"ALTER ROLE {name} SET default_transaction_read_only = on"))
    (only,) = doctor("--database-url", url)["writable"]
    assert only["level"] == "fault"
    assert "primary" in only["do"]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "ok"), (1.5, "ok"), (3, "warning"), (-3, "warning"), (61, "fault"), (-3600, "fault")]
)
def test_a_clock_that_differs(seconds: float, expected: str) -> None:
    before = datetime(2026, 11, 1, tzinfo=UTC)
    after = before + timedelta(seconds=0.2)
    assert clock(before + timedelta(seconds=seconds), before, after).level == expected


def test_a_slow_answer_is_no_skew() -> None:
    before = datetime(2026, 11, 1, tzinfo=UTC)
    assert clock(before + timedelta(seconds=5), before, before + timedelta(seconds=10)).level == "ok"


def test_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        serving("127.0.0.1:0", live=lambda: None, ready=lambda: None) as own,
    ):
        monkeypatch.setenv("AWRY_LISTEN", own.address)
        monkeypatch.setenv("AWRY_INGEST_LISTEN", f"127.0.0.1:{other.getsockname()[1]}")
        parts = doctor()
    (listen,), (ingest,) = parts["port (listen)"], parts["port (ingest_listen)"]
    assert (listen["level"], listen["found"]) == ("ok", f"{own.address}: awry listens there")
    assert ingest["level"] == "fault"
    assert "taken by another process" in ingest["found"]
    assert "AWRY_INGEST_LISTEN" in ingest["do"]


def test_destinations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    destinations = [
        {"name": "near", "kind": "alertmanager", "url": f"http://u:{CANARY}@localhost:9093/{CANARY}"},
        {"name": "nowhere", "kind": "alertmanager", "url": f"http://{'x' * 64}.example/{CANARY}"},
        {"name": "siem", "kind": "file", "path": str(tmp_path / "siem.jsonl")},
    ]
    monkeypatch.setenv("AWRY_DESTINATIONS", json.dumps(destinations))
    parts = doctor()
    assert [level(parts, f"destination {name}") for name in ("near", "nowhere", "siem")] == ["ok", "fault", "ok"]
    assert "127.0.0.1" in parts["destination near"][0]["found"]


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    parts = doctor("--state-dir", tmp_path / "file" / "state")
    assert level(parts, "state folder") == "fault"


def test_what_is_wrong_in_settings_comes_first_and_is_asked_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWRY_DATABASE_URL_FILE", str(tmp_path / "no-secret"))
    (tmp_path / "awry.toml").write_text('listen = "everywhere"\nprivacy = "all"\n')
    monkeypatch.delenv("AWRY_LISTEN")
    parts = doctor()
    assert {each["level"] for each in parts["settings"]} == {"fault"}
    assert {each["found"].partition(":")[0] for each in parts["settings"]} >= {"AWRY_DATABASE_URL_FILE"}
    assert any("awry.toml:2" in each["found"] for each in parts["settings"])
    assert "database" not in parts
    (tmp_path / "awry.toml").write_text("database_url\n")
    monkeypatch.delenv("AWRY_DATABASE_URL_FILE")
    assert set(doctor()) <= {"settings", "disk", "port (ingest_listen)", "port (score_listen)"}


# Kafka.


def test_no_broker_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.stream.kafka.client._BOOTSTRAP_MS", 500)
    monkeypatch.setenv("AWRY_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    assert level(doctor("--source", "kafka:traffic"), "kafka") == "fault"


def test_topics_group_and_lag(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, group = new_topic(cluster), unique("group")
    monkeypatch.setenv("AWRY_KAFKA_BOOTSTRAP", cluster.bootstrap)
    source = ("--source", f"kafka:{topic}", "--kafka-group", group, "--dead-letters-out", "none")
    parts = doctor(*source, "--verdicts-out", "kafka:no-such-topic")
    assert [(each["level"], "no-such-topic" in each["found"]) for each in parts["topic"]] == [
        ("ok", False),
        ("fault", True),
    ]
    assert level(parts, "group") == "fault"
    assert "--from earliest" in parts["group"][0]["do"]
    assert level(doctor(*source, "--from", "earliest"), "group") == "ok"
    assert "topic" not in doctor()

    produce(cluster, topic, [b"{}"] * 5, partition=0)
    with closing(KafkaAdminClient(**cluster.options())) as admin:
        admin.alter_group_offsets(group, {TopicPartition(topic, 0): OffsetAndMetadata(2, "", -1)})
    (only,) = doctor(*source)["group"]
    assert only["level"] == "warning"
    assert "0 members and is 3 messages behind" in only["found"]


# The model.


def test_the_model_and_its_probes(tiny_folder: Path, tmp_path: Path) -> None:
    arguments = ("--model", tiny_folder / "tiny-chat", "--probe", tiny_folder / "drift.json")
    parts = doctor(*arguments, model=True)
    assert level(parts, "model") == level(parts, "probes") == "ok"
    assert "drift (version " in parts["probes"][0]["found"]
    assert level(doctor(*arguments[:2], model=True), "probes") == "fault"  # no shipped one is for this model


def test_a_device_that_is_not_here(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_DEVICE", "cuda:99")
    (only,) = doctor("--model", tiny_folder / "tiny-chat", model=True)["model"]
    assert only["level"] == "fault"
    assert "auto, cpu" in only["found"]


def test_a_source_of_lines_needs_no_kafka(tmp_path: Path) -> None:
    lines(tmp_path / "s.jsonl", [{"id": "1", "prompt": "x"}])
    assert "kafka" not in doctor("--source", tmp_path / "s.jsonl")
