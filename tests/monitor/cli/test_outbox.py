"""`awry send` and `awry outbox` in processes of their own: what is told to whom, and what an operator can do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.support.alerts.alert_rows import SECRET, Receiver, Reply, all_outbox, flagged, open_alerts, receiving
from tests.support.alerts.delivery import carriers, place
from tests.support.cli import awry, refused

pytestmark = pytest.mark.slow


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Any:
    with receiving() as state:
        configure(monkeypatch, state)
        yield state


def configure(monkeypatch: pytest.MonkeyPatch, receiver: Receiver, **more: Any) -> None:
    """One destination, `pager`, in the environment of the processes."""
    one = {
        "name": "pager",
        "kind": "webhook",
        "url": receiver.url + "/geheim",
        "secret": SECRET,
        "allow_private": True,
        "group_wait_seconds": 0,
    }
    monkeypatch.setenv("AWRY_DESTINATIONS", json.dumps([one | more]))


def make_due(engine: Engine) -> None:
    """As if all waits were over."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET due_at = now() - interval '1 s'"))
        connection.execute(text("UPDATE destinations SET held_until = NULL"))


def test_send_delivers_a_page_with_its_links(
    engine: Engine, postgres_database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWRY_RUNBOOK_URL", "https://wiki.example/{rule}")
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(3)])
    done = awry("send", "--once", "--database-url", postgres_database)
    assert (done.returncode, done.stderr) == (0, "")
    (got,) = receiver.received
    data = json.loads(got.body)["data"]
    assert data["links"] == {"runbook": "https://wiki.example/threshold"}
    assert data["group"]["alerts"] == 3


def test_a_link_that_cannot_be_made_is_a_setting_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for template in ("https://wiki.example/{prompt}", "javascript:alert(1)", "https://x/{rule.__class__}", "https://{"):
        monkeypatch.setenv("AWRY_DASHBOARD_URL", template)
        assert refused(awry("send", "--once")).startswith("awry: dashboard_url ("), template


def test_from_a_refusal_to_a_delivery(engine: Engine, postgres_database: str, receiver: Receiver) -> None:
    at = ("--database-url", postgres_database)
    receiver.replies = [Reply(400)]
    open_alerts(engine, [flagged(1)])
    done = awry("send", "--once", *at)
    assert done.stderr == "awry: pager: 0 sent, 1 to be tried again, 0 given up\n"
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET refusals = 9"))
    make_due(engine)
    assert awry("send", "--once", *at).stderr == "awry: pager: 0 sent, 0 to be tried again, 1 given up\n"
    (dead,) = carriers(engine)

    listed = awry("outbox", "list", "--state", "dead", *at).stdout
    assert str(dead.id)[:8] in listed
    assert "status 400" in re.sub(r"\s+", " ", listed)
    assert "geheim" not in listed
    assert "events: 0 pending, 0 delivered, 1 dead" in listed
    assert str(dead.id)[:8] not in awry("outbox", "list", "--state", "pending", *at).stdout

    assert "name notifications, or say --dead" in refused(awry("outbox", "retry", *at))
    assert "notification: 'abcdef' names none; see awry outbox list" in refused(awry("outbox", "retry", "abcdef", *at))
    receiver.replies = [Reply(200)]
    assert (
        awry("outbox", "retry", str(dead.id)[:8], *at).stderr
        == "awry: 1 notifications are due now; awry send delivers them\n"
    )
    assert awry("outbox", "retry", "--dead", *at).stderr.startswith("awry: 0 notifications")
    assert awry("send", "--once", *at).returncode == 0
    assert len({r.headers["webhook-id"] for r in receiver.received}) == 1
    assert all_outbox(engine)[0].delivered_at is not None


def test_a_destination_that_is_gone_is_enabled_again(
    engine: Engine, postgres_database: str, receiver: Receiver
) -> None:
    at = ("--database-url", postgres_database)
    receiver.replies = [Reply(410), Reply(200)]
    open_alerts(engine, [flagged(1)])
    assert "awry outbox enable" in awry("send", "--once", *at).stderr
    assert "pager: disabled since" in awry("outbox", "list", *at).stdout
    assert awry("send", "--once", *at).stderr == ""
    assert len(receiver.received) == 1
    assert "nothing was ever sent to nobody" in refused(awry("outbox", "enable", "nobody", *at))
    assert awry("outbox", "enable", "pager", *at).stderr == "awry: pager is sent to again\n"
    assert awry("send", "--once", *at).returncode == 0
    assert len(receiver.received) == 2
    assert place(engine).disabled_at is None
    assert "pager: answers" in awry("outbox", "list", *at).stdout


@pytest.mark.parametrize(
    ("kind", "options"),
    [("webhook", {"format": "ocsf"}), ("alertmanager", {"secret": None}), ("pagerduty", {"routing_key": "k" * 32})],
)
def test_a_destination_is_tried_without_a_database(
    receiver: Receiver, kind: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"name": "pager", "kind": kind, "url": receiver.url, "allow_private": True}
    if kind == "webhook":
        one["secret"] = SECRET
    monkeypatch.setenv("AWRY_DESTINATIONS", json.dumps([one | {k: v for k, v in options.items() if v is not None}]))
    done = awry("outbox", "test", "pager")
    assert done.stderr == "awry: pager took alert.opened\nawry: pager took alert.resolved\n"
    assert len(receiver.received) == 2
    receiver.replies = [Reply(401)]
    line = refused(awry("outbox", "test", "pager"))
    assert line.strip() == "awry: outbox test: pager did not take alert.opened: status 401"
    assert "there is no destination siem; there are pager" in refused(awry("outbox", "test", "siem"))


def test_a_private_address_is_refused_unless_it_is_meant(
    engine: Engine, postgres_database: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(monkeypatch, receiver, allow_private=False)
    open_alerts(engine, [flagged(1)])
    awry("send", "--once", "--database-url", postgres_database)
    assert receiver.received == []
    assert "allow_private" in all_outbox(engine)[0].last_error
