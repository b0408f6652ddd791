"""Leases that are renewed while a sender works."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from alerts.delivery import queue
from alerts.delivery.deliver import deliver_due
from alerts.senders.base import Notification
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.delivery import (
    Recorder,
    channels,
)


def test_a_lease_outlasts_a_receiver_that_is_slower_than_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two loops, six notifications, each taking longer than the lease: nothing is sent twice."""
    monkeypatch.setattr(queue, "LEASE", timedelta(seconds=1))
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(6)])

    class Slow(Recorder):
        def send(self, notification: Notification) -> None:
            time.sleep(1.5)
            super().send(notification)

    slow = Slow()
    threads = [
        threading.Thread(target=deliver_due, args=(engine, channels("pager", sender=slow)), daemon=True)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(slow.sent) == len({e.id for e in slow.sent}) == 6
    assert {e.attempts for e in slow.sent} == {1}
