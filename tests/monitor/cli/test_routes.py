"""`awry outbox route`, what the audit has of operators, and exceptions in `awry rules check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from alerts.delivery.channel import Channel
from alerts.delivery.deliver import deliver_due
from alerts.senders.base import DeliveryError
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.alerts.delivery import Recorder
from tests.support.cli import awry, refused

pytestmark = pytest.mark.slow

CONFIG = """
[[destinations]]
name = "chat"
kind = "console"
[[destinations]]
name = "oncall"
kind = "file"
path = "/tmp/oncall.json"

[[time_intervals]]
name = "night"
[[time_intervals.time_intervals]]
times = [{start_time = "00:00", end_time = "06:00"}]
location = "Europe/Berlin"

[route]
destinations = ["chat"]
[[route.routes]]
matchers = ['severity="critical"']
destinations = ["oncall"]
continue = true
[[route.routes]]
matchers = ['tenant=~"acme|shop"']
mute_time_intervals = ["night"]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "awry.toml"
    path.write_text(CONFIG)
    monkeypatch.setenv("AWRY_CONFIG", str(path))
    return path


def test_route_says_where_an_alert_would_go_and_what_would_hold_it(config: Path) -> None:
    asked = ("outbox", "route", "--severity", "critical", "--tenant", "acme", "--at", "2026-01-05T03:00+01:00")
    done = awry(*asked, "--json")
    assert json.loads(done.stdout) == [
        {"destination": "oncall", "routes": ['{}/{severity="critical"}'], "held_by": None, "until": None},
        {
            "destination": "chat",
            "routes": ['{}/{tenant=~"acme|shop"}'],
            "held_by": "mute time interval night",
            "until": "2026-01-05T05:00:00+00:00",
        },
    ]
    done = awry(*asked, "--verify", "oncall,chat")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == 'oncall  by {}/{severity="critical"}'
    assert "held: mute time interval night until 2026-01-05T05:00" in done.stdout
    assert "verify: the alert goes to oncall,chat, not to chat" in refused(awry(*asked, "--verify", "chat"))
    assert "at: 'tonight' is no time" in refused(awry("outbox", "route", "--at", "tonight"))


def test_a_tree_without_a_default_is_refused_at_load(config: Path) -> None:
    config.write_text(CONFIG.replace('[route]\ndestinations = ["chat"]\n', "[route]\n"))
    assert "route.destinations: is missing" in refused(awry("outbox", "route"))


def test_what_operators_do_to_deliveries_and_rows_is_in_the_audit(engine: Engine, postgres_database: str) -> None:
    open_alerts(engine, [flagged(1)])
    gone = Channel(Recorder(DeliveryError("status 410", fault="gone")))
    assert deliver_due(engine, {"pager": gone}).gone == 1
    database = ("--database-url", postgres_database)
    assert awry("outbox", "enable", "pager", "--as", "anna", *database).returncode == 0
    assert awry("outbox", "retry", "--now", "--destination", "pager", "--as", "anna", *database).returncode == 0
    assert awry("db", "retain", "--days", "30", "--as", "anna", *database).returncode == 0
    rows = [(row.who, row.via, row.action) for row in audit_rows(engine) if row.who == "anna"]
    actions = ("outbox.enable", "outbox.retry", "retain.start", "retain.end")
    assert rows == [("anna", "cli", action) for action in actions]
    by_action = {row.action: row.after for row in audit_rows(engine)}
    assert by_action["outbox.enable"] == {"destination": "pager"}
    assert by_action["outbox.retry"] == {"ids": [], "destination": "pager", "waiting_too": True, "notifications": 1}
    assert by_action["retain.end"]["days"] == 30
    assert "nothing was ever sent to nobody" in refused(awry("outbox", "enable", "nobody", *database))
    assert len([row for row in audit_rows(engine) if row.action == "outbox.enable"]) == 1


def test_check_lists_exceptions_and_names_those_that_are_over(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(
        '[[threshold]]\nname = "threshold"\nid = "t-1"\ntags = ["AML.T0054"]\n'
        '[[exception]]\nmatchers = [\'tenant="red"\']\nowner = "anna"\nreason = "SEC-77"\nuntil = 2026-01-31\n'
    )
    done = awry("rules", "check", str(path))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "threshold threshold  AML.T0054",
        'exception {tenant="red"}  expired, until 2026-02-01T00:00:00+00:00, anna: SEC-77',
    ]
    said = 'exception {tenant="red"} of anna has no effect any more: it ended on 2026-02-01 00:00 UTC'
    assert said in done.stderr
    found = json.loads(awry("rules", "check", str(path), "--json").stdout)
    assert [(each["kind"], each.get("id"), each.get("state")) for each in found] == [
        ("threshold", "t-1", None),
        ("exception", None, "expired"),
    ]


def test_deliveries_say_what_holds_them(engine: Engine, postgres_database: str) -> None:
    open_alerts(engine, [flagged(1)])
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET held_by = 'mute time interval night', routes = ARRAY['{}']"))
        connection.execute(text("UPDATE alerts SET inhibited_by = ARRAY[id], held_open = 'the monitor is blind: x'"))
    done = awry("outbox", "list", "--json", "--database-url", postgres_database)
    (one,) = json.loads(done.stdout)["notifications"]
    assert (one["held_by"], one["routes"]) == ("mute time interval night", ["{}"])
    shown = awry("alerts", "show", str(one["dedup_key"]), "--database-url", postgres_database).stdout
    assert "inhibited by" in shown
    assert "not resolved" in shown
    assert "held: mute time interval night" in shown
    assert "inhibited" in awry("alerts", "list", "--database-url", postgres_database).stdout
