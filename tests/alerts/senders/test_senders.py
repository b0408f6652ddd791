"""Destinations: settings that name their field, and the console's one line."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from alerts.delivery.channel import make_channels
from alerts.delivery.grouping import Policy
from alerts.destinations import KINDS, Destination
from alerts.senders.alertmanager import AlertmanagerSender
from alerts.senders.base import DeliveryError, Notification
from alerts.senders.chat import ChatSender
from alerts.senders.console import ConsoleSender
from alerts.senders.file import FileSender
from alerts.senders.pagerduty import PagerDutySender
from alerts.senders.syslog import SyslogSender
from alerts.senders.webhook import WebhookSender
from monitor.errors import SettingsError
from monitor.settings import load_settings
from tests.support.alert_rows import SECRET

URL = "https://hooks.example/x"


def secret(size: int) -> str:
    return "whsec_" + base64.b64encode(b"x" * size).decode()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "Pager", "kind": "console"}, "name"),
        ({"name": "", "kind": "console"}, "name"),
        ({"name": "p", "kind": "mail"}, "kind"),
        ({"name": "p"}, "kind"),
        ({"name": "p", "kind": "console", "adress": "x"}, "adress"),
        ({"name": "p", "kind": "webhook", "secret": SECRET}, "url"),
        ({"name": "p", "kind": "webhook", "secret": SECRET, "url": "ftp://geheim"}, "url"),
        ({"name": "p", "kind": "webhook", "secret": SECRET, "url": "http:///x"}, "url"),
        ({"name": "p", "kind": "webhook", "secret": SECRET, "url": "http://[::1/x"}, "url"),
        ({"name": "p", "kind": "webhook", "secret": SECRET, "url": "http://h:99999/"}, "url"),
        ({"name": "p", "kind": "webhook", "url": URL}, "secret"),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": "geheim"}, "secret"),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": "whsec_geheim!"}, "secret"),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": secret(23)}, "secret"),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": secret(65)}, "secret"),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": SECRET + " whsec_geheim"}, "secret"),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": SECRET, "proxy": "geheim"}, "proxy"),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": SECRET, "headers": {"a b": "x"}}, "headers"),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": SECRET, "headers": {"a": "geheim\r\nb: c"}}, "headers"),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": SECRET, "group_by": ["severity"]}, "group_by"),
        (
            {"name": "p", "kind": "webhook", "url": URL, "secret": SECRET, "format": "ocsf", "group_by": ["rule"]},
            "group_by",
        ),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": SECRET, "give_up_hours": 0}, "give_up_hours"),
        ({"name": "p", "kind": "webhook", "url": URL, "secret": SECRET, "routing_key": "k" * 32}, "routing_key"),
        ({"name": "p", "kind": "console", "url": URL}, "url"),
        ({"name": "p", "kind": "console", "include_text": True}, "include_text"),
        ({"name": "p", "kind": "pagerduty"}, "routing_key"),
        ({"name": "p", "kind": "pagerduty", "routing_key": "geheim"}, "routing_key"),
        ({"name": "p", "kind": "pagerduty", "routing_key": "k" * 32, "url": "geheim"}, "url"),
        ({"name": "p", "kind": "alertmanager"}, "url"),
        ({"name": "p", "kind": "alertmanager", "url": "http://h/", "group_by": ["rule"]}, "group_by"),
        ({"name": "p", "kind": "apprise"}, "url"),
        ({"name": "p", "kind": "apprise", "url": "geheim"}, "url"),
        ({"name": "p", "kind": "syslog", "url": "http://geheim:514"}, "url"),
        ({"name": "p", "kind": "syslog", "url": "syslog+tcp://"}, "url"),
        ({"name": "p", "kind": "file"}, "path"),
        ({"name": "p", "kind": "file", "path": "/x", "format": "cef"}, "format"),
    ],
)
def test_a_bad_destination_names_the_field_and_not_the_secret(
    values: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWRY_DESTINATIONS", json.dumps([values]))
    with pytest.raises(SettingsError) as found:
        load_settings()
    assert str(found.value).startswith("destinations.0")
    assert field in str(found.value)
    assert "geheim" not in str(found.value)
    if values.get("secret"):
        assert values["secret"] not in str(found.value)


GOOD: dict[str, tuple[dict[str, Any], type]] = {
    "console": ({}, ConsoleSender),
    "webhook": ({"url": URL, "secret": SECRET}, WebhookSender),
    "alertmanager": ({"url": "http://127.0.0.1:9093/prefix"}, AlertmanagerSender),
    "pagerduty": ({"routing_key": "k" * 32}, PagerDutySender),
    "apprise": ({"url": "json://geheim"}, ChatSender),
    "syslog": ({"url": "syslog+tls://siem.example"}, SyslogSender),
    "file": ({"path": "/var/log/awry.json"}, FileSender),
}


def made(kind: str, **more: Any) -> Destination:
    return Destination(name="d", kind=kind, **GOOD[kind][0] | more)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_sender(kind: str) -> None:
    one = made(kind)
    assert isinstance(make_channels([one])["d"].sender, GOOD[kind][1])
    for value in GOOD[kind][0].values():
        assert kind == "file" or value not in repr(one)


def test_pagers_group_and_who_keeps_events_does_not() -> None:
    grouped = {kind: make_channels([made(kind)])["d"].policy for kind in KINDS}
    pages = Policy(("rule", "probe"), wait=10, interval=300)
    one_each = Policy()
    assert grouped == {
        "console": one_each,
        "webhook": pages,
        "alertmanager": Policy(whole=True),
        "pagerduty": pages,
        "apprise": pages,
        "syslog": one_each,
        "file": one_each,
    }
    assert make_channels([made("webhook", format="ecs")])["d"].policy == one_each
    assert make_channels([made("webhook", group_by=())])["d"].policy == one_each
    of_tenants = make_channels([made("webhook", group_by=["tenant"], group_wait_seconds=3)])["d"].policy
    assert of_tenants == Policy(("tenant",), wait=3, interval=300)


def test_who_is_at_home_in_private_networks() -> None:
    assert {kind: made(kind).may_be_private for kind in ("webhook", "pagerduty", "alertmanager")} == {
        "webhook": False,
        "pagerduty": False,
        "alertmanager": True,
    }
    assert made("webhook", allow_private=True).may_be_private
    assert not made("alertmanager", allow_private=False).may_be_private


def test_a_fingerprint_changes_with_every_option_and_quotes_none() -> None:
    variants = [
        made("webhook"),
        made("webhook", url=URL + "2"),
        made("webhook", secret=secret(30)),
        made("webhook", headers={"a": "b"}),
        made("webhook", give_up_hours=1),
    ]
    found = [v.fingerprint for v in variants]
    assert len(set(found)) == len(variants)
    assert made("webhook").fingerprint == found[0]


def test_an_address_that_apprise_does_not_know_is_a_failed_try() -> None:
    sender = make_channels([made("apprise", url="nosuch://geheim")])["d"].sender
    with pytest.raises(DeliveryError, match="url is none that Apprise knows") as found:
        sender.send(event("shop"))
    assert "geheim" not in str(found.value)


@pytest.mark.parametrize("size", [24, 64])
def test_secrets_of_any_allowed_size(size: int) -> None:
    one = made("webhook", secret=secret(size))
    assert secret(size) not in repr(one)


def test_a_destination_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Destination(name="c", kind="console").name = "d"  # type: ignore[misc]


def test_two_destinations_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [{"name": "c", "kind": "console"}] * 2
    monkeypatch.setenv("AWRY_DESTINATIONS", json.dumps(twice))
    with pytest.raises(SettingsError, match=r"^destinations .*two destinations share a name"):
        load_settings()


def event(tenant: str) -> Notification:
    data = {
        "severity": "error",
        "dedup_key": f"threshold:drift:{tenant}:smol",
        "count": 3,
        "score": 1.234,
        "threshold": 0.5,
        "alert_id": "abc",
    }
    body = {"timestamp": "2026-03-01T00:00:00+00:00", "data": data}
    return Notification(uuid.uuid4(), "console", "alert.opened", body, 1, datetime.now(UTC))


def test_the_console_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    ConsoleSender().send(event("shop"))
    assert capsys.readouterr().out == (
        "2026-03-01T00:00:00+00:00 ERROR    alert.opened threshold:drift:shop:smol count=3 score=1.23 threshold=0.50 "
        "id=abc\n"
    )


def test_a_tenants_name_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The name comes from the stream: it must not break lines or move a terminal's cursor."""
    ConsoleSender().send(event("a\nFORGED\x1b[2J\u2028東京"))
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    assert "\x1b" not in out
    assert "a\\nFORGED\\x1b[2J\\u2028東京" in out
