"""The whole chain with the real model: `awry stack` as a user runs it, and a kill -9 of `awry run` in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine

from monitor import demo, stack
from monitor.settings import Settings
from monitor.stream.kafka.client import Cluster
from monitor.stream.kafka.embedded import Broker, free_port
from probes.organisms.messages import everyday
from storage import schema
from tests.conftest import url_of
from tests.support.rows import stored
from tests.support.stream.kafka import committed, new_topic, produce, wait_for
from tests.support.stream.worker import scores_of

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.timeout(900)]
AWRY = [sys.executable, "-c", "from monitor.cli.app import main; main()"]


@contextmanager
def started(arguments: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An awry command; nothing of it outlives the block."""
    with output.open("wb") as file:
        process = subprocess.Popen([*AWRY, *arguments], stdout=file, stderr=file, env=dict(os.environ))
        try:
            yield process
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                process.wait()


def test_the_stack_prints_the_table_and_ctrl_c_takes_it_down(state: Path, tmp_path: Path) -> None:
    output = tmp_path / "said"
    with started(["stack", "--state-dir", str(state), "--out", str(tmp_path / "out")], output) as stack:
        wait_for(lambda: "the stack is up" in output.read_text() or stack.poll() is not None, 600)
        said = output.read_text()
        assert stack.poll() is None, said
        # The same traffic, model and probe as the demo, so the same table.
        found = {name: int(n) for name, n in re.findall(r"(caught|missed|false alarms) +(\d+)", said)}
        assert found["caught"] > 25
        assert found["missed"] < 15
        assert found["false alarms"] < 15
        address = re.search(r"http://[\d.:]+/metrics", said)
        assert address is not None
        with urllib.request.urlopen(address[0], timeout=10) as response:  # noqa: S310 - loopback
            assert 'awry_messages_total{status="scored"} 200.0' in response.read().decode()
        page = re.search(r"page +(http://[\d.:]+)", said)
        assert page is not None
        with urllib.request.urlopen(page[1], timeout=10) as response:  # noqa: S310 - loopback
            assert 'class="score flagged"' in response.read().decode()
        children = psutil.Process(stack.pid).children(recursive=True)
        assert "java" in {c.name() for c in children}
        stack.send_signal(signal.SIGINT)
        assert stack.wait(120) == 0
        # PostgreSQL's own processes stop a moment after the last who used it.
        wait_for(lambda: not any(c.is_running() and c.status() != psutil.STATUS_ZOMBIE for c in children), 30)
    assert "everything is down" in output.read_text()


def test_a_kill_of_the_real_worker(
    cluster: Cluster, broker: Broker, engine: Engine, state: Path, tmp_path: Path
) -> None:
    """Some messages are scored before the kill, some after it; scores are those of the probe alone."""
    from probes.card import load_probe
    from probes.model.builtin import SMOLLM2
    from probes.model.load import load_chat_model

    topic = new_topic(cluster, 2)
    dead = f"{topic}.dead-letters"
    cluster.create_topics([dead], 1)
    prompts = everyday("demo")[:40]
    for n, prompt in enumerate(prompts):
        produce(cluster, topic, [json.dumps({"id": f"m{n:02}", "prompt": prompt}).encode()], partition=n % 2)
    port = free_port()
    config = tmp_path / "awry.toml"
    config.write_text(
        f'kafka_bootstrap = "{broker.address}"\nkafka_group = "{topic}"\nbatch_messages = 4\n'
        f'listen = "127.0.0.1:{port}"\nlogs = "json"\n'
    )
    arguments = [
        "run",
        "--source",
        f"kafka:{topic}",
        "--from",
        "earliest",
        "--probe",
        "harmful-request",
        "--database-url",
        url_of(engine),
        "--state-dir",
        str(state),
    ]

    def rows() -> list[dict[str, Any]]:
        return stored(engine, schema.scores)

    def told(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    with started(arguments, tmp_path / "first") as first:
        wait_for(lambda: told("/healthz")[0] == 200, 60)
        assert told("/readyz") == (503, "starting or stopping\n")
        wait_for(lambda: rows() or first.poll() is not None, 240)
        assert first.poll() is None, (tmp_path / "first").read_text()
        assert told("/readyz") == (200, "ok\n")
        wait_for(lambda: len(rows()) >= 8 or first.poll() is not None, 60)
        first.kill()
        first.wait()
    assert 8 <= len(rows()) < 40
    with started(arguments, tmp_path / "second") as second:
        wait_for(lambda: sum(committed(cluster, topic).values()) == 40 or second.poll() is not None, 300)
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0, (tmp_path / "second").read_text()
    ids = {(r["partition"], r["offset"]): r["message_id"] for r in stored(engine, schema.messages)}
    found = {ids[r["partition"], r["offset"]]: r["score"] for r in rows()}
    chat = load_chat_model(SMOLLM2, state)
    expected = scores_of(chat, load_probe("harmful-request"), prompts)
    assert [found[f"m{n:02}"] for n in range(40)] == pytest.approx(expected, abs=1e-3)
    assert len(rows()) == len(ids) == 40


def test_nothing_of_the_owners_reaches_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "awry.toml"
    theirs.write_text('[[destinations]]\nname = "pager"\nkind = "console"\n')
    monkeypatch.setenv("AWRY_CONFIG", str(theirs))
    monkeypatch.setenv("AWRY_DATABASE_URL", "postgresql://awry@db.example/production")
    monkeypatch.setenv("AWRY_KAFKA_PASSWORD", "secret")
    settings = demo.demo_settings(Settings(), tmp_path)
    made = stack._environment(settings, "127.0.0.1:1", "127.0.0.1:2", tmp_path)
    assert made["PATH"]
    for name in [name for name in made if name.startswith("AWRY_")]:
        monkeypatch.setenv(name, made[name])
    for name in ("AWRY_DATABASE_URL", "AWRY_KAFKA_PASSWORD"):
        assert name not in made
        monkeypatch.delenv(name)
    given = {n: v for n, v in made.items() if n.startswith("AWRY_") and v}
    for name in set(made) - set(given):
        if name.startswith("AWRY_"):
            monkeypatch.delenv(name)
    read = Settings()
    assert [d.name for d in read.destinations] == ["console"]
    assert read.database_url is None
    assert json.loads(made["AWRY_DESTINATIONS"]) == [{"name": "console", "kind": "console"}]
