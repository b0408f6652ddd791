"""`awry send` and `awry serve` as processes: health, metrics of the tables, a clean end. The services of
docker-compose.yml run here without Docker, by their own commands and settings."""

from __future__ import annotations

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

import pytest
import yaml
from sqlalchemy import Engine, text

from monitor.stream.kafka.embedded import free_port
from storage.database import connect, head_revision
from tests.conftest import url_of
from tests.support import ROOT
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.stream.kafka import wait_for

AWRY = [sys.executable, "-c", "from monitor.cli.app import main; main()"]


def compose(service: str) -> dict[str, Any]:
    """A service of docker-compose.yml: anchors and merges resolved, defaults of variables taken."""
    found = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service]
    assert isinstance(found, dict)
    for name, value in found["environment"].items():
        found["environment"][name] = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value) if value is not None else None
    return found


@contextmanager
def running(service: str, engine: Engine, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The service's own command and settings, with this machine's addresses. Gives the process and its address."""
    one, port = compose(service), free_port()
    settings = {k: v for k, v in one["environment"].items() if v is not None}
    settings |= {"AWRY_DATABASE_URL": url_of(engine), "AWRY_STATE_DIR": str(tmp_path)}
    settings["AWRY_LISTEN"] = settings["AWRY_LISTEN"].replace("0.0.0.0:9464", f"127.0.0.1:{port}")
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen([*AWRY, *one["command"]], env=os.environ | settings, stdout=log, stderr=log)
    try:
        yield process, f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        log.close()


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def an_alert(engine: Engine) -> None:
    """One open alert with one delivery to the console."""
    assert open_alerts(engine, [flagged(1, 5.0)], ("console",))[0].severity == "critical"


@pytest.mark.slow
@pytest.mark.parametrize("service", ["send", "serve"])
def test_a_service_of_the_compose_file(service: str, engine: Engine, tmp_path: Path) -> None:
    an_alert(engine)
    with running(service, engine, tmp_path) as (process, address):
        wait_for(lambda: get(address, "/readyz") == (200, "ok\n") or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert get(address, "/healthz") == (200, "ok\n")
        pending = "awry_outbox_pending 1.0" if service == "serve" else "awry_outbox_pending 0.0"
        wait_for(lambda: pending in get(address, "/metrics")[1])
        said = get(address, "/metrics")[1]
        assert 'awry_alerts_live{severity="critical",state="open"} 1.0' in said
        assert "awry_database_up 1.0" in said
        if service == "send":
            assert 'awry_deliveries_total{destination="console",result="sent"} 1.0' in said
            assert "alert.opened" in (tmp_path / "log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.slow
def test_a_database_that_went_away_shows(engine: Engine, tmp_path: Path) -> None:
    with running("serve", engine, tmp_path) as (_process, address):
        wait_for(lambda: get(address, "/readyz")[0] == 200)
        with closed_to_all(engine):
            wait_for(lambda: get(address, "/readyz") == (503, "the database does not answer\n"))
            assert get(address, "/healthz")[0] == 200
            assert "awry_database_up 0.0" in get(address, "/metrics")[1]
        wait_for(lambda: get(address, "/readyz")[0] == 200)


@contextmanager
def closed_to_all(engine: Engine) -> Iterator[None]:
    """The server takes no connection to this database."""
    server = connect(engine.url.set(database="postgres").render_as_string(hide_password=False))
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        change = f'ALTER DATABASE "{engine.url.database}" WITH ALLOW_CONNECTIONS'
        connection.execute(text(f"{change} false"))
        try:
            yield
        finally:
            connection.execute(text(f"{change} true"))
    server.dispose()


def test_the_migration_of_the_compose_file(empty_engine: Engine, tmp_path: Path) -> None:
    with running("migrate", empty_engine, tmp_path) as (process, _):
        assert process.wait(60) == 0
    assert f"the schema is at {head_revision()}" in (tmp_path / "log").read_text()
