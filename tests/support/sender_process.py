"""A sending loop as a process of its own, for tests that kill it: python -m tests.support.sender_process URL WEBHOOK

It looks every 50 ms, and its lease is short, so that an heir need not wait for long. With a third argument it stands
still for ever after the receiver has taken a page, before that is written down.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from alerts.delivery import lease, loop, queue
from alerts.senders.base import Event
from storage.database import connect
from tests.support.delivery import courier, to_webhook

LEASE = timedelta(seconds=1)


def main() -> None:
    queue.LEASE = lease.LEASE = LEASE
    engine = connect(sys.argv[1])
    plain = to_webhook(sys.argv[2])
    if len(sys.argv) > 3:
        plain = courier(_Standing(plain.sender))
    loop.run(engine, {"pager": plain}, lambda seconds: bool(time.sleep(seconds)), 0.05, lambda _: None, print)


class _Standing:
    def __init__(self, sender: object) -> None:
        self._sender = sender

    def send(self, event: Event) -> None:
        self._sender.send(event)  # type: ignore[attr-defined]
        print("taken", flush=True)
        time.sleep(3600)


if __name__ == "__main__":
    main()
