"""A sending loop as a process of its own, to be killed: python -m benchmarks.support.sender_process URL WEBHOOK

It looks every 50 ms, and its lease is short, so that an heir need not wait for long. With a third argument it stands
still for ever after the receiver has taken a notification, before that is written down.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from unittest.mock import patch

from alerts.delivery import loop, queue
from alerts.delivery.channel import Channel
from alerts.delivery.grouping import Policy
from alerts.senders.base import Notification, Sender
from benchmarks.support.destinations import to_webhook
from storage.database import connect

LEASE = timedelta(seconds=2)


def main() -> None:
    engine = connect(sys.argv[1])
    destination = to_webhook(sys.argv[2])
    if len(sys.argv) > 3:
        destination = Channel(_Standing(destination.sender), Policy())
    with patch.object(queue, "LEASE", LEASE):
        loop.run(engine, {"pager": destination}, _never_stop, 0.05, lambda _: None, print)


def _never_stop(seconds: float) -> bool:
    time.sleep(seconds)
    return False


class _Standing:
    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def send(self, notification: Notification) -> None:
        self._sender.send(notification)
        print("taken", flush=True)
        time.sleep(3600)


if __name__ == "__main__":
    main()
