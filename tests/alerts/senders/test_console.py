"""One line for each notification."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from alerts.senders.base import Notification
from alerts.senders.console import ConsoleSender


def notification(tenant: str) -> Notification:
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
    ConsoleSender().send(notification("shop"))
    assert capsys.readouterr().out == (
        "2026-03-01T00:00:00+00:00 ERROR    alert.opened threshold:drift:shop:smol count=3 score=1.23 threshold=0.50 "
        "id=abc\n"
    )


def test_a_tenants_name_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The name comes from the stream: it must not break lines or move a terminal's cursor."""
    ConsoleSender().send(notification("a\nFORGED\x1b[2J\u2028東京"))
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    assert "\x1b" not in out
    assert "a\\nFORGED\\x1b[2J\\u2028東京" in out
