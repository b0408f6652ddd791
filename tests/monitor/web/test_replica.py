"""Pages and API that read from a replica: a real standby, whose replay is stopped to see from where something came."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import timedelta

import httpx2
import pytest
from sqlalchemy import Engine, create_engine, text

from alerts.links import Links
from monitor.web.auth import tenancy, tokens
from monitor.web.auth.options import AccessOptions
from monitor.web.server import serving
from storage.database import connect, upgrade
from storage.replica import as_of
from tests.conftest import url_of
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.alert_scenes import ANNA
from tests.support.embedded import embedded_postgres
from tests.support.replica import replica_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Engine, Engine]]:
    """A primary at head and its standby."""
    with embedded_postgres() as url:
        primary = connect(url)
        upgrade(primary)
        with replica_of(url) as replica_url:
            replica = connect(replica_url, "read_database_url")
            yield primary, replica
            replica.dispose()
        primary.dispose()


def caught_up(primary: Engine, replica: Engine) -> None:
    with primary.connect() as connection:
        lsn = connection.execute(text("SELECT pg_current_wal_insert_lsn()")).scalar_one()
    until = time.monotonic() + 60
    while True:
        with replica.connect() as connection:
            if connection.execute(text("SELECT pg_last_wal_replay_lsn() >= CAST(:at AS pg_lsn)"), {"at": lsn}).scalar():
                return
        assert time.monotonic() < until
        time.sleep(0.05)


def stop_replay(replica: Engine, *, stop: bool) -> None:
    with replica.connect() as connection:
        connection.execute(text(f"SELECT pg_wal_replay_{'pause' if stop else 'resume'}()"))
        paused = "SELECT pg_get_wal_replay_pause_state()"
        while stop and connection.execute(text(paused)).scalar() != "paused":
            time.sleep(0.02)


def test_reads_come_from_the_replica_and_changes_are_seen_at_once(
    servers: tuple[Engine, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    primary, replica = servers
    monkeypatch.setattr(tenancy, "FRESH_SECONDS", 3600)
    with primary.begin() as connection:
        secret = tokens.create(connection, "anna", "act", timedelta(days=1), ANNA)
    open_alerts(primary, [flagged(1, tenant="first")])
    caught_up(primary, replica)
    stop_replay(replica, stop=True)
    open_alerts(primary, [flagged(2, tenant="second")])
    # Another one than that which looks on, as it is set to read only.
    served = connect(url_of(replica), "read_database_url")
    with (
        serving("127.0.0.1:0", primary, Links(), lambda: None, AccessOptions("loopback"), None, served) as address,
        httpx2.Client(base_url=f"http://{address}", headers={"Authorization": f"Bearer {secret}"}) as client,
    ):
        (alert,) = client.get("/api/v1/alerts").json()["alerts"]
        assert alert["tenant"] == "first"
        page = client.get("/alerts").text
        assert "first" in page
        assert "second" not in page
        assert re.search(r"As of .*\(read replica\)", page)
        # What one has just done is there, from the primary.
        assert client.post(f"/api/v1/alerts/{alert['id']}/acknowledge").status_code == 200
        assert {each["tenant"] for each in client.get("/api/v1/alerts").json()["alerts"]} == {"first", "second"}
    served.dispose()


def test_the_time_that_a_replica_shows(servers: tuple[Engine, Engine]) -> None:
    primary, replica = servers
    stop_replay(replica, stop=False)
    caught_up(primary, replica)
    with primary.connect() as connection:
        assert as_of(connection) is None
        before = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    stop_replay(replica, stop=True)
    with primary.begin() as connection:
        connection.execute(text("UPDATE rollup_state SET at = now()"))
    with replica.connect() as connection:
        until = time.monotonic() + 60
        while (shown := as_of(connection)) is None or shown > before:  # until it has received what it does not apply
            assert time.monotonic() < until
            time.sleep(0.05)
    stop_replay(replica, stop=False)
    caught_up(primary, replica)
    with replica.connect() as connection:
        found = as_of(connection)
    assert found is not None
    assert found > before


def test_a_replica_that_is_away_is_read_around(servers: tuple[Engine, Engine]) -> None:
    primary, _ = servers
    away = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    tenancy_ = tenancy.Tenancy(primary, replica=away)
    with tenancy_.reading(None) as connection:
        assert connection.execute(text("SELECT pg_is_in_recovery()")).scalar() is False
