"""`awry run` with a judge as a process: killed, told to stop, and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from storage import schema
from tests.support.cli import AWRY, awry, environment, refused
from tests.support.judge_server import HARMFUL, JudgeServer, Said, judge_server
from tests.support.rows import dump, stored
from tests.support.stream.worker import lines, wire

pytestmark = pytest.mark.slow
CANARY = "CANARYTEXT"


@pytest.fixture
def silent() -> Iterator[JudgeServer]:
    """One that takes a question and says nothing."""
    ended = threading.Event()
    with judge_server(Said(before=lambda: ended.wait(120))) as server:
        try:
            yield server
        finally:
            ended.set()


def of_run(folder: Path, url: str, source: Path) -> list[str]:
    said = ["run", "--model", folder / "tiny-chat", "--probe", folder / "drift.json", "--database-url", url]
    return [str(each) for each in (*said, "--state-dir", folder, "--logs", "json", "--source", source)]


def settings(server: JudgeServer) -> dict[str, str]:
    return {
        "AWRY_JUDGE_URL": server.url,
        "AWRY_JUDGE_MODEL": "small",
        "AWRY_JUDGE_API_KEY": "geheim",
        "AWRY_JUDGE_BANDS": '{"drift": [-1e9, 1e9]}',
        "AWRY_PRIVACY": "none",
    }


def states(engine: Engine) -> list[tuple[str | None, str | None]]:
    return [(row["judge"], row["judge_reason"]) for row in stored(engine, schema.scores)]


@contextmanager
def started(
    engine: Engine, folder: Path, url: str, source: Path, server: JudgeServer
) -> Iterator[subprocess.Popen[str]]:
    """A worker whose messages all wait for the judge; its log is beside the source."""
    env = environment() | settings(server)
    with (source.parent / "log").open("w") as log:
        process = subprocess.Popen([AWRY, *of_run(folder, url, source)], env=env, stderr=log, text=True)
    try:
        deadline = time.monotonic() + 200
        while len(states(engine)) < 4 or not server.requests:
            assert process.poll() is None, (source.parent / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_worker_that_is_killed_and_started_again(
    tiny_folder: Path, engine: Engine, postgres_database: str, tmp_path: Path, silent: JudgeServer
) -> None:
    source = lines(tmp_path / "stream.jsonl", [wire(f"m{n}", f"{CANARY} {n}", tenant="shop") for n in range(4)])
    with started(engine, tiny_folder, postgres_database, source, silent) as process:
        process.kill()
    assert states(engine) == [("waiting", None)] * 4
    # The probe's verdicts were there at once, and the alert of what it flagged.
    assert [row["flagged"] for row in stored(engine, schema.scores)] == [True] * 4
    assert [row["state"] for row in stored(engine, schema.alerts)] == ["open"]
    with engine.begin() as connection:
        connection.execute(text("UPDATE scores SET created_at = now() - interval '1 hour'"))
    with judge_server(HARMFUL) as other, pytest.MonkeyPatch.context() as patched:
        for name, value in settings(other).items():
            patched.setenv(name, value)
        again = awry(*of_run(tiny_folder, postgres_database, source))
        assert again.returncode == 0, again.stderr
        # Its text is nowhere any more, and is not read again.
        assert other.requests == []
    assert states(engine) == [("not asked", "worker stopped")] * 4
    assert CANARY not in dump(engine) + again.stderr
    assert "geheim" not in dump(engine) + again.stderr


def test_a_worker_that_is_told_to_stop(
    tiny_folder: Path, engine: Engine, postgres_database: str, tmp_path: Path, silent: JudgeServer
) -> None:
    source = lines(tmp_path / "stream.jsonl", [wire(f"m{n}", f"{CANARY} {n}", tenant="shop") for n in range(4)])
    with started(engine, tiny_folder, postgres_database, source, silent) as process:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(60)
    said = (tmp_path / "log").read_text()
    assert ended == 0, said
    assert states(engine) == [("not asked", "worker stopped")] * 4
    assert json.loads(said.splitlines()[-1])["event"] == "finished"
    assert CANARY not in said


def test_an_address_that_text_must_not_go_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_JUDGE_URL", "http://judge.example/v1")
    monkeypatch.setenv("AWRY_JUDGE_MODEL", "m")
    said = refused(awry("run", "--source", tmp_path / "none"))
    assert said.startswith("awry: judge_url (AWRY_JUDGE_URL): ")
    assert "set judge_allow_http" in said
