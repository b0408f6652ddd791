"""Destinations in the settings: options by kind, secrets that no error quotes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import ValidationError

from alerts.delivery.channel import make_channels
from alerts.delivery.grouping import Policy
from alerts.destinations import KINDS, Destination
from monitor.errors import SettingsError
from monitor.settings import load_settings
from tests.support.alerts.alert_rows import SECRET
from tests.support.alerts.delivery import valid_destination

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
        ({"name": "p", "kind": "webhook", "secret": SECRET, "url": "http://⑫7.0.0.1/geheim"}, "url"),
        ({"name": "p", "kind": "alertmanager", "url": "http://[v1.x]/geheim"}, "url"),
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


def test_pagers_group_and_files_do_not() -> None:
    grouped = {kind: make_channels([valid_destination(kind)])["d"].policy for kind in KINDS}
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
    assert make_channels([valid_destination("webhook", format="ecs")])["d"].policy == one_each
    assert make_channels([valid_destination("webhook", group_by=())])["d"].policy == one_each
    of_tenants = make_channels([valid_destination("webhook", group_by=["tenant"], group_wait_seconds=3)])["d"].policy
    assert of_tenants == Policy(("tenant",), wait=3, interval=300)


def test_which_kinds_may_be_in_private_networks() -> None:
    assert {kind: valid_destination(kind).may_be_private for kind in ("webhook", "pagerduty", "alertmanager")} == {
        "webhook": False,
        "pagerduty": False,
        "alertmanager": True,
    }
    assert valid_destination("webhook", allow_private=True).may_be_private
    assert not valid_destination("alertmanager", allow_private=False).may_be_private


def test_a_fingerprint_changes_with_every_option_and_quotes_none() -> None:
    variants = [
        valid_destination("webhook"),
        valid_destination("webhook", url=URL + "2"),
        valid_destination("webhook", secret=secret(30)),
        valid_destination("webhook", headers={"a": "b"}),
        valid_destination("webhook", give_up_hours=1),
    ]
    found = [v.fingerprint for v in variants]
    assert len(set(found)) == len(variants)
    assert valid_destination("webhook").fingerprint == found[0]


@pytest.mark.parametrize("size", [24, 64])
def test_secrets_of_any_allowed_size(size: int) -> None:
    one = valid_destination("webhook", secret=secret(size))
    assert secret(size) not in repr(one)


def test_a_destination_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Destination(name="c", kind="console").name = "d"  # type: ignore[misc]


def test_two_destinations_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [{"name": "c", "kind": "console"}] * 2
    monkeypatch.setenv("AWRY_DESTINATIONS", json.dumps(twice))
    with pytest.raises(SettingsError, match=r"^destinations .*two destinations share a name"):
        load_settings()
