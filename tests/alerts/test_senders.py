"""Destinations: settings that name their field, and the console's one line."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from alerts.senders import ConsoleSender, WebhookSender, make_senders
from alerts.senders.base import Destination, Event
from monitor.errors import SettingsError
from monitor.settings import load_settings
from tests.alerts.parts import SECRET

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


@pytest.mark.parametrize("size", [24, 64])
def test_a_good_destination(size: int) -> None:
    one = Destination(name="pager", kind="webhook", url="http://127.0.0.1:8000/x?y", secret=secret(size))  # type: ignore[arg-type]
    assert secret(size) not in repr(one)
    console = Destination(name="console", kind="console")
    made = make_senders([one, console])
    assert isinstance(made["pager"], WebhookSender)
    assert isinstance(made["console"], ConsoleSender)


def test_a_destination_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Destination(name="c", kind="console").name = "d"  # type: ignore[misc]


def test_two_destinations_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [{"name": "c", "kind": "console"}] * 2
    monkeypatch.setenv("AWRY_DESTINATIONS", json.dumps(twice))
    with pytest.raises(SettingsError, match=r"^destinations .*two destinations share a name"):
        load_settings()


def event(tenant: str) -> Event:
    data = {"severity": "error", "dedup_key": f"threshold:drift:{tenant}:smol", "count": 3, "score": 1.234,
            "threshold": 0.5, "alert_id": "abc"}  # fmt: skip
    body = {"timestamp": "2026-03-01T00:00:00+00:00", "data": data}
    return Event(uuid.uuid4(), "console", "alert.opened", body, 1, datetime.now(UTC))


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
