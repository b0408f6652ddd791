"""`awry grafana push` against a server that checks requests against the description of Grafana 13's HTTP API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from alerts.dashboards import dashboards
from alerts.dashboards.changes import Change, changes
from alerts.dashboards.push import push
from alerts.errors import GrafanaError
from monitor.cli.app import app
from storage.rollup import roll_up
from tests.conftest import url_of
from tests.support.web.grafana_server import TOKEN, Grafana, running

SOURCES = {"awry-postgres": "awry-postgres", "awry-prometheus": "awry-prometheus"}
AT = datetime(2026, 11, 1, tzinfo=UTC)
CHANGES = [Change(AT, "drift", 1, 0.5, True), Change(AT + timedelta(days=1), "drift", 1, 0.61, False)]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    with running() as state:
        yield state


def pushed(
    grafana: Grafana, folder: str = "awry", found: list[Change] = CHANGES, sources: dict[str, str] = SOURCES
) -> list[str]:
    return list(push(grafana.url, TOKEN, folder, sources, found))


def test_a_push_makes_folder_dashboards_and_annotations(grafana: Grafana) -> None:
    said = pushed(grafana)
    assert grafana.refused == []
    assert {uid: f["title"] for uid, f in grafana.folders.items()} == {"awry": "awry"}
    assert set(grafana.dashboards) == set(dashboards())
    assert {d["meta"]["folderUid"] for d in grafana.dashboards.values()} == {"awry"}
    marks = list(grafana.annotations.values())
    assert [m["text"] for m in marks] == [
        "probe drift version 1, threshold 0.5000",
        "threshold of drift version 1 is 0.6100",
    ]
    assert [m["time"] for m in marks] == [1793491200000, 1793577600000]
    assert all("awry" in m["tags"] for m in marks)
    assert "annotations: 2 made, 0 changed, 0 up to date" in said
    assert said[0].endswith("runs Grafana 13.2.3")


def test_a_second_push_duplicates_nothing(grafana: Grafana) -> None:
    pushed(grafana)
    before = json.dumps([grafana.folders, grafana.dashboards, grafana.annotations])
    grafana.calls.clear()
    said = pushed(grafana)
    assert json.dumps([grafana.folders, grafana.dashboards, grafana.annotations]) == before
    assert {method for method, _ in grafana.calls} == {"GET"}
    assert [line for line in said if "made" in line and "0 made" not in line] == []


def test_a_second_push_updates(grafana: Grafana) -> None:
    pushed(grafana)
    grafana.dashboards["awry-probe"]["dashboard"]["title"] = "changed by hand"
    grafana.annotations[1]["text"] = "changed by hand"
    moved = grafana.dashboards["awry-worker"]["meta"]
    moved["folderUid"] = "elsewhere"
    said = pushed(grafana, folder="White-box")
    assert grafana.refused == []
    assert grafana.folders["awry"]["title"] == "White-box"
    assert grafana.dashboards["awry-probe"]["dashboard"]["title"] == "awry: probe"
    assert grafana.dashboards["awry-probe"]["dashboard"]["version"] == 2
    assert grafana.dashboards["awry-worker"]["meta"]["folderUid"] == "awry"
    assert grafana.dashboards["awry-overview"]["dashboard"]["version"] == 1
    assert grafana.annotations[1]["text"] == CHANGES[0].text
    assert len(grafana.annotations) == 2
    assert "annotations: 0 made, 1 changed, 1 up to date" in said


def test_no_call_names_anything_by_a_number_of_grafanas_own(grafana: Grafana) -> None:
    pushed(grafana)
    pushed(grafana, found=[*CHANGES, Change(AT, "heads", 2, None, True)])
    paths = {path for _, path in grafana.calls}
    assert not [p for p in paths if "/id/" in p]
    assert grafana.refused == []


def test_other_data_sources_are_named_in_every_query(grafana: Grafana) -> None:
    grafana.datasources |= {"mine-pg", "mine-prom"}
    pushed(grafana, sources={"awry-postgres": "mine-pg", "awry-prometheus": "mine-prom"})

    def uids(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            source = value.get("datasource")
            if isinstance(source, dict):
                yield source["uid"]
            for one in value.values():
                yield from uids(one)
        elif isinstance(value, list):
            for one in value:
                yield from uids(one)

    assert set(uids(list(grafana.dashboards.values()))) == {"mine-pg", "mine-prom"}
    assert set(grafana.dashboards) == set(dashboards())


def test_a_data_source_that_is_not_there_stops_it_before_anything_changed(grafana: Grafana) -> None:
    grafana.datasources.discard("awry-prometheus")
    with pytest.raises(GrafanaError, match=r"no data source with the uid awry-prometheus.*--prometheus UID"):
        pushed(grafana)
    assert (grafana.folders, grafana.dashboards) == ({}, {})


@pytest.mark.parametrize(
    ("status", "headers", "payload", "said"),
    [
        (401, {}, b'{"message": "Invalid API key"}', "the token is not valid"),
        (403, {}, b'{"message": "denied"}', "needs the role Editor"),
        (500, {}, b'{"message": "broken"}', r"status 500 \(broken\)"),
        (502, {"content-type": "text/html"}, b"<html>Bad Gateway</html>", "status 502"),
        (200, {"content-type": "text/html"}, b"<html>Sign in</html>", "is the address right"),
        (200, {}, b"[]", "the answer is not Grafana's"),
        (302, {"location": "http://127.0.0.1:1/login"}, b"", "redirects: give the address"),
    ],
)
def test_what_goes_wrong_names_the_fix_and_no_token(
    grafana: Grafana, status: int, headers: dict[str, str], payload: bytes, said: str
) -> None:
    grafana.refuse = (status, headers, payload)
    with pytest.raises(GrafanaError, match=said) as caught:
        pushed(grafana)
    assert TOKEN not in str(caught.value)
    assert len(grafana.calls) == 1, "the token went nowhere else"


def test_a_grafana_that_is_not_there() -> None:
    with pytest.raises(GrafanaError, match=r"no answer .*is the address right"):
        list(push("http://127.0.0.1:1", TOKEN, "awry", SOURCES))


@pytest.mark.parametrize(
    "url", ["grafana.example", "ftp://g", "http://", "http://a:99999", "http://u:p@h", "http://h?x"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(GrafanaError, match="--url"):
        list(push(url, TOKEN, "awry", SOURCES))


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ümlaut"])
def test_a_token_that_is_none(token: str) -> None:
    with pytest.raises(GrafanaError, match="--token"):
        list(push("http://127.0.0.1:1", token, "awry", SOURCES))


def test_a_grafana_below_a_path() -> None:
    with running("/tools/grafana") as grafana:
        pushed(grafana)
        assert set(grafana.dashboards) == set(dashboards())


def test_the_server_refuses_what_the_description_does_not_have(grafana: Grafana) -> None:
    for method, target, body in (
        ("GET", "/api/datasources/3", None),
        ("GET", "/api/annotations?dashboardID=3", None),
        ("POST", "/api/annotations", {"tags": ["x"]}),
        ("POST", "/api/annotations", {"text": "x", "dashboardId": None}),
        ("POST", "/api/folders", {"title": "x", "id": 3}),
        ("POST", "/api/dashboards/db", {"dashboard": {}, "overwrite": "yes"}),
    ):
        assert grafana.answer(method, target, body)[0] == 400, (method, target, body)


def test_changes_are_what_the_tables_tell(production: Engine, engine: Engine) -> None:
    with production.connect() as connection:
        found = changes(connection)
    assert [(c.probe, c.version, c.threshold, c.registered) for c in found] == [
        ("drift", 1, 0.5, True),
        ("heads", 2, None, True),
    ]
    with engine.begin() as connection:
        for hour, threshold in ((0, 0.5), (1, 0.5), (2, 0.7), (3, 0.7)):
            connection.execute(
                text(
                    "INSERT INTO score_rollups (minutes, bucket, probe, probe_version, probe_digest, tenant, model, n, "
                    "flagged, total, peak, threshold) VALUES (60, :at, 'drift', 1, '', 't', '', 3, 0, 1, 1, :threshold)"
                ),
                {"at": AT + timedelta(hours=hour), "threshold": threshold},
            )
        (change,) = changes(connection)
    assert (change.at, change.threshold, change.registered) == (AT + timedelta(hours=2), 0.7, False)
    assert change.key == "awry:drift:1:threshold-20261101T0200"
    assert roll_up(engine) == 0


def test_the_command(grafana: Grafana, production: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
    arguments = ["grafana", "push", "--url", grafana.url, "--database-url", url_of(production), "--folder", "Audit"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert grafana.folders["awry"]["title"] == "Audit"
    assert len(grafana.annotations) == 2
    assert TOKEN not in done.output
