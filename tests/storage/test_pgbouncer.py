"""Everything that processes do in PostgreSQL, through a real PgBouncer in transaction mode: a session is lent for one
transaction, and whoever relies on anything of it afterwards fails here."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text

from alerts.delivery.deliver import deliver_due
from alerts.evaluator import evaluate
from alerts.lifecycle.lifecycle import record_flagged
from alerts.links import Links
from alerts.rules.builtin import built_in
from monitor.telemetry import metrics
from monitor.web.auth import tokens
from monitor.web.auth.options import AccessOptions
from monitor.web.server import serving
from storage.database import check_schema, connect, head_revision, is_reachable, transact, upgrade
from storage.errors import DatabaseUnavailableError
from storage.heartbeat import Heartbeat, write_heartbeat
from storage.partitions import ensure_ahead, utc_today
from storage.retention import retain
from storage.rollup import roll_up
from storage.sources import Place, lock_streams, place
from storage.writer import BatchRows, register_probe, write_batch
from tests.conftest import url_of
from tests.support.alerts.alert_rows import flagged
from tests.support.alerts.alert_scenes import ANNA
from tests.support.alerts.delivery import Recorder, channel
from tests.support.at_once import at_once
from tests.support.pgbouncer import pgbouncer
from tests.support.rows import digest_of, message, score

pytestmark = pytest.mark.slow

WORKERS = 4
BATCHES = 12


@pytest.fixture
def pooled(engine: Engine) -> Iterator[Engine]:
    with pgbouncer(engine) as url:
        made = connect(url)
        yield made
        made.dispose()


def test_an_empty_database_is_migrated_through_it(empty_engine: Engine) -> None:
    with pgbouncer(empty_engine) as url:
        pooled = connect(url)
        assert upgrade(pooled) == head_revision()
        check_schema(pooled)
        assert is_reachable(pooled)
        pooled.dispose()


def _work(engine: Engine, worker: int) -> int:
    """A worker's life: its batches with their alerts, and a heartbeat after each."""
    new = 0
    for n in range(BATCHES):
        offset = worker * BATCHES + n

        def write(connection: Any, offset: int = offset) -> int:
            lock_streams(connection, [("topic", 0)])
            placed = place(connection, [Place("topic", 0, offset, "log", "aa")])
            rows = BatchRows([message(offset, day=utc_today())], [score(offset)])
            written = write_batch(connection, rows, placed.known)
            record_flagged(connection, [replace(flagged(offset), day=utc_today())], ("pager",))
            return len(written.scores)

        new += transact(engine, write)
        beat = Heartbeat(uuid.uuid4(), f"worker-{worker}", "topic")
        transact(engine, partial(write_heartbeat, heartbeat=beat, stored=True))
    return new


def test_workers_sender_rollups_and_pages_run_through_it(pooled: Engine, engine: Engine) -> None:
    assert ensure_ahead(pooled)
    with pooled.begin() as connection:
        register_probe(connection, digest_of("drift"), "drift", 1, "h", {})
    others = [connect(pooled.url.render_as_string(hide_password=False)) for _ in range(WORKERS)]
    assert at_once([partial(_work, own, n) for n, own in enumerate(others)]) == [BATCHES] * WORKERS
    rules = built_in(0.6, 0.9)
    assert all(each is None or not each.failed for each in at_once([partial(evaluate, e, rules, ()) for e in others]))

    recorder = Recorder()
    with pooled.begin() as connection:
        connection.execute(text("UPDATE outbox SET due_at = now() - interval '1 minute'"))
    at_once([partial(deliver_due, own, {"pager": channel(recorder)}) for own in others])
    assert len(recorder.sent) == 1

    with pooled.begin() as connection:
        connection.execute(text("UPDATE scores SET created_at = now() - interval '1 minute'"))
    added = [each for each in at_once([partial(roll_up, own) for own in others]) if each]
    assert sum(added) == WORKERS * BATCHES
    with pooled.begin() as connection:
        secret = tokens.create(connection, "soar", "act", timedelta(days=1), ANNA)
    with (
        metrics.watching(pooled),
        serving("127.0.0.1:0", pooled, Links(), lambda: None, AccessOptions("loopback")) as address,
        httpx2.Client(base_url=f"http://{address}", headers={"Authorization": f"Bearer {secret}"}) as client,
    ):
        (alert,) = client.get("/api/v1/alerts").json()["alerts"]
        paths = (
            "/",
            "/alerts",
            f"/alerts/{alert['id']}",
            "/messages/topic/0/3",
            "/probes",
            "/probes/drift",
            "/metrics",
        )
        for path in paths * 3:
            assert client.get(path).status_code == 200, path
        for path in ("/api/v1/messages/topic/0/3", "/api/v1/probes", "/api/v1/precision", "/api/v1/deliveries") * 3:
            assert client.get(path).status_code == 200, path
        assert client.post("/api/v1/silences", json={"rule": "threshold", "for": "1h"}).status_code == 201
        assert "awry_database_up 1.0" in client.get("/metrics").text
    assert retain(pooled, 30).rows == {}
    for own in others:
        own.dispose()
    left = "SELECT current_setting('lock_timeout'), (SELECT count(*) FROM pg_prepared_statements), current_user"
    with pooled.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert connection.execute(text(left)).one() == ("0", 0, "postgres")


def test_statement_mode_is_refused_at_start_with_the_reason(engine: Engine) -> None:
    with (
        pgbouncer(engine, "statement") as url,
        pytest.raises(DatabaseUnavailableError, match="awry needs pool_mode transaction or session"),
    ):
        connect(url)


def test_a_database_that_the_pooler_loses_is_waited_for(pooled: Engine, engine: Engine) -> None:
    tries = []

    def work(connection: Any) -> int:
        tries.append(1)
        if len(tries) == 1:
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        return int(connection.execute(text("SELECT 7")).scalar_one())

    assert transact(pooled, work) == 7
    assert len(tries) == 2
    assert url_of(engine) != url_of(pooled)
