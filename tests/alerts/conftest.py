"""A receiver on loopback, senders to it, and a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from alerts.senders.webhook import WebhookSender
from tests.support.alerts.alert_rows import Receiver, flagged, open_alerts, receiving
from tests.support.alerts.delivery import FakeClock, webhook_sender


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with receiving() as state:
        yield state


@pytest.fixture
def sender(receiver: Receiver) -> WebhookSender:
    return webhook_sender(receiver.url + "/hook")


@pytest.fixture
def alert_in_outbox(engine: Engine) -> Engine:
    """A database with one alert that was enqueued for `pager`."""
    open_alerts(engine, [flagged(7)])
    return engine


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
