"""Pages and API that read from a replica: a real standby, whose replay is stopped to see from where something came."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from sqlalchemy import Engine, create_engine, text

from alerts.links import Links
from monitor.doctor import replica as looked_at
from monitor.telemetry import metrics
from monitor.telemetry.metrics import REGISTRY
from monitor.web.auth import tenancy, tokens
from monitor.web.auth.options import AccessOptions
from monitor.web.data_as_of import HEADER
from monitor.web.server import serving
from storage.database import connect, upgrade
from storage.replica import as_of
from tests.conftest import url_of
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.alert_scenes import ANNA
from tests.support.cli import invoke
from tests.support.embedded import embedded_postgres
from tests.support.replica import replica_of
from tests.support.stream.kafka import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Engine, Engine]]:
    """A primary at head and its standby."""
    with embedded_postgres() as url:
        primary = connect(url)
        upgrade(primary)
        # What a standby has applied is what the tests wrote.
        with primary.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ALTER SYSTEM SET autovacuum = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        with replica_of(url) as replica_url:
            replica = connect(replica_url, "read_database_url")
            yield primary, replica
            replica.dispose()
        primary.dispose()


@pytest.fixture
def just_started(servers: tuple[Engine, Engine]) -> Iterator[Engine]:
    """A standby that has applied no transaction since it started."""
    with replica_of(url_of(servers[0])) as url:
        engine = connect(url, "read_database_url")
        yield engine
        engine.dispose()


def caught_up(primary: Engine, replica: Engine) -> None:
    with primary.connect() as connection:
        lsn = connection.execute(text("SELECT pg_current_wal_flush_lsn()")).scalar_one()
    until = time.monotonic() + 60
    while True:
        with replica.connect() as connection:
            if connection.execute(text("SELECT pg_last_wal_replay_lsn() >= CAST(:at AS pg_lsn)"), {"at": lsn}).scalar():
                return
        assert time.monotonic() < until
        time.sleep(0.05)


def shown_by(replica: Engine) -> datetime:
    """The time that a standby shows."""
    with replica.connect() as connection:
        found = as_of(connection)
    assert found is not None
    return found


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
    second = datetime.now(UTC)
    open_alerts(primary, [flagged(2, tenant="second")])
    wait_for(lambda: shown_by(replica) < second)  # until it has received what it does not apply
    # Another one than that which looks on, as it is set to read only.
    served = connect(url_of(replica), "read_database_url")
    with (
        serving("127.0.0.1:0", primary, Links(), lambda: None, AccessOptions("loopback"), None, served) as address,
        httpx2.Client(base_url=f"http://{address}", headers={"Authorization": f"Bearer {secret}"}) as client,
    ):
        found = client.get("/api/v1/alerts")
        (alert,) = found.json()["alerts"]
        assert alert["tenant"] == "first"
        assert said_of(found) < second
        page = client.get("/alerts")
        assert "first" in page.text
        assert "second" not in page.text
        assert re.search(r"As of .*\(read replica\)", page.text)
        assert said_of(page) < second
        # What one has just done is there, from the primary.
        assert client.post(f"/api/v1/alerts/{alert['id']}/acknowledge").status_code == 200
        found = client.get("/api/v1/alerts")
        assert {each["tenant"] for each in found.json()["alerts"]} == {"first", "second"}
        assert HEADER not in found.headers
        # The pages of this process have changed nothing, and go on with the replica.
        assert HEADER in client.get("/").headers
    served.dispose()


def said_of(response: httpx2.Response) -> datetime:
    """As of when a response says that its data is."""
    said = response.headers[HEADER]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said)
    return datetime.fromisoformat(said)


def test_without_a_replica_nothing_is_said(servers: tuple[Engine, Engine]) -> None:
    primary, _ = servers
    with (
        serving("127.0.0.1:0", primary, Links(), lambda: None, AccessOptions("loopback")) as address,
        httpx2.Client(base_url=f"http://{address}") as client,
    ):
        assert HEADER not in client.get("/alerts").headers


def test_the_lag_is_a_metric(servers: tuple[Engine, Engine]) -> None:
    primary, replica = servers
    stop_replay(replica, stop=False)
    caught_up(primary, replica)
    with metrics.watching(primary, replica):
        assert REGISTRY.get_sample_value("awry_replica_up") == 1
        lag = REGISTRY.get_sample_value("awry_replica_lag_seconds")
        assert lag is not None
        assert 0 <= lag < 600
        stop_replay(replica, stop=True)
        with primary.begin() as connection:
            connection.execute(text("UPDATE rollup_state SET at = now()"))
        wait_for(lambda: (REGISTRY.get_sample_value("awry_replica_lag_seconds") or 0) > lag, 60)
    stop_replay(replica, stop=False)
    assert REGISTRY.get_sample_value("awry_replica_up") is None
    with metrics.watching(primary):
        assert REGISTRY.get_sample_value("awry_replica_up") is None


def test_a_replica_that_has_applied_nothing_yet_knows_how_far_it_is_behind(
    servers: tuple[Engine, Engine], just_started: Engine
) -> None:
    primary, _ = servers
    with just_started.connect() as connection:
        assert connection.execute(text("SELECT pg_last_xact_replay_timestamp()")).scalar() is None
    stop_replay(just_started, stop=True)
    with primary.begin() as connection:
        before = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        connection.execute(text("UPDATE rollup_state SET at = now()"))
    wait_for(lambda: shown_by(just_started) < before, 60)  # until it has received what it does not apply
    assert before - shown_by(just_started) < timedelta(minutes=10)
    with metrics.watching(primary, just_started):
        lag = REGISTRY.get_sample_value("awry_replica_lag_seconds")
    assert lag is not None
    assert 0 < lag < 600


def test_what_is_no_replica_is_not_up(servers: tuple[Engine, Engine]) -> None:
    primary, _ = servers
    for other in (primary, create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")):
        with metrics.watching(primary, other):
            assert REGISTRY.get_sample_value("awry_replica_up") == 0
            assert REGISTRY.get_sample_value("awry_replica_lag_seconds") is None


def doctor(primary: Engine, read_url: str) -> dict[str, dict[str, str]]:
    """What `awry doctor` finds of the replica, by part."""
    urls = {"AWRY_DATABASE_URL": url_of(primary), "AWRY_READ_DATABASE_URL": read_url}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in urls.items():
            patch.setenv(name, value)
        done = invoke("doctor", "--json", "--no-model")
    assert "geheim" not in done.output
    return {f["part"]: f for f in json.loads(done.stdout)["findings"] if f["part"].startswith("replica")}


def test_the_doctor_looks_at_it(servers: tuple[Engine, Engine]) -> None:
    primary, replica = servers
    stop_replay(replica, stop=False)
    caught_up(primary, replica)
    parts = doctor(primary, url_of(replica))
    assert [parts[part]["level"] for part in ("replica", "replica lag", "replica schema")] == ["ok", "ok", "ok"]
    assert parts["replica role"]["found"] == "postgres is a superuser"
    for url, said in (
        (url_of(primary), "is no standby"),
        (replica.url.set(database="template1").render_as_string(hide_password=False), "is another database"),
        ("postgresql://nobody:geheim@127.0.0.1:1/none", "cannot reach"),
    ):
        found = doctor(primary, url)["replica"]
        assert found["level"] == "fault"
        assert said in found["found"]


def test_the_doctor_says_how_far_it_is_behind(servers: tuple[Engine, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    primary, replica = servers
    stop_replay(replica, stop=False)
    with primary.begin() as connection:
        connection.execute(text("UPDATE rollup_state SET at = now()"))
    caught_up(primary, replica)
    stop_replay(replica, stop=True)
    with primary.begin() as connection:
        connection.execute(text("UPDATE rollup_state SET at = now()"))
    monkeypatch.setattr(looked_at, "_BEHIND", 0.0)
    wait_for(lambda: doctor(primary, url_of(replica))["replica lag"]["level"] == "warning", 60)
    monkeypatch.setattr(looked_at, "_FAR_BEHIND", 0.0)
    assert doctor(primary, url_of(replica))["replica lag"]["level"] == "fault"
    stop_replay(replica, stop=False)


def test_the_doctor_looks_at_its_role(servers: tuple[Engine, Engine]) -> None:
    primary, replica = servers
    stop_replay(replica, stop=False)
    name = f"pages_{uuid.uuid4().hex[:8]}"

    def found(*grants: str) -> dict[str, dict[str, str]]:
        with primary.begin() as connection:
            for grant in grants:
                connection.execute(text(grant))
        caught_up(primary, replica)
        return doctor(primary, replica.url.set(username=name).render_as_string(hide_password=False))

    parts = found(f"CREATE ROLE {name} LOGIN")
    assert parts["replica"]["level"] == "ok"
    assert parts["replica role"]["found"] == f"{name} may not read awry's tables"
    parts = found(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}", f"REVOKE ALL ON audit FROM {name}")
    assert parts["replica schema"]["level"] == "ok"
    assert parts["replica role"]["found"] == f"{name} may not read audit"
    parts = found(f"GRANT SELECT ON audit TO {name}")
    assert parts["replica role"]["level"] == "warning"
    assert "awry_tenant" in parts["replica role"]["found"]
    parts = found(f"GRANT awry_tenant TO {name} WITH INHERIT FALSE, SET TRUE")
    assert parts["replica role"] == {
        "part": "replica role",
        "level": "ok",
        "found": f"{name} may read the tables",
        "do": "",
    }


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
    wait_for(lambda: shown_by(replica) <= before, 60)  # until it has received what it does not apply
    stop_replay(replica, stop=False)
    caught_up(primary, replica)
    assert shown_by(replica) > before


def test_a_replica_that_is_away_is_read_around(servers: tuple[Engine, Engine]) -> None:
    primary, _ = servers
    away = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    tenancy_ = tenancy.Tenancy(primary, replica=away)
    with tenancy_.reading(None) as connection:
        assert connection.execute(text("SELECT pg_is_in_recovery()")).scalar() is False
