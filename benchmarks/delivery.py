"""What a burst costs in notifications, and what receivers and crashes can do to a delivery.

How to run: `make bench-delivery`, or `python -m benchmarks.delivery [--out docs/bench-delivery.json] [--quick]`. An
embedded PostgreSQL, receivers on loopback, the outbox as `awry send` runs it. Figures:

- burst: 1,000 flagged messages of 50 tenants, in batches of 50 by two writers; requests that each kind of destination
  got for them, and seconds from the first message to the notification where nothing but the waiting window passes
- rate: notifications/s to a receiver that replies at once, one an event, by one loop and by two
- faults: for each, events, requests, events that never arrived, notifications that arrived twice, twice with another
  id or body (must be 0), and seconds of the loop's clock from the receiver's return to the last delivery. The clock is
  set forward where hours pass; loops that are killed are processes, and time is real there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from alerts.delivery.deliver import deliver_due
from benchmarks.support.alerts import all_outbox, flagged, open_alerts
from benchmarks.support.destinations import FakeClock, configured, to_webhook
from benchmarks.support.receiver import Receiver, Reply, receiving
from storage.database import connect, upgrade
from storage.embedded import embedded_url

ROOT = Path(__file__).parent.parent
TENANTS = 50
GROUPED = {"group_by": ["rule", "probe"]}


@dataclass(frozen=True)
class Fault:
    """One line of the table."""

    fault: str
    events: int
    requests: int
    lost: int
    repeats: int
    repeats_that_differ: int
    seconds_to_recover: float | None = None
    note: str = ""


def fresh(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE alerts, outbox, destinations CASCADE"))


def burst(engine: Engine, messages: int, *destinations: str) -> None:
    """Flagged messages by two writers at once."""
    found = [flagged(n, 0.6 + n / messages, tenant=f"t{n % TENANTS:02}") for n in range(messages)]

    def work(part: int) -> None:
        for start in range(part * messages // 2, (part + 1) * messages // 2, 50):
            open_alerts(engine, found[start : start + 50], destinations)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def notifications_of_a_burst(engine: Engine, messages: int) -> dict[str, Any]:
    kinds: dict[str, Callable[[str], Any]] = {
        "webhook": lambda url: to_webhook(url, **GROUPED),
        "webhook, a page a tenant": lambda url: to_webhook(url, group_by=["rule", "probe", "tenant"]),
        "webhook, a page an event": to_webhook,
        "pagerduty": lambda url: configured(
            name="pager", kind="pagerduty", url=url, routing_key="k" * 32, allow_private=True
        ),
        "alertmanager": lambda url: configured(name="pager", kind="alertmanager", url=url),
    }
    found = {}
    for name, made in kinds.items():
        fresh(engine)
        with receiving() as receiver:
            to = {"pager": made(receiver.url)}
            start = time.perf_counter()
            burst(engine, messages, "pager")
            written = time.perf_counter() - start
            clock = FakeClock()
            clock.sleep(10)
            deliver_due(engine, to, limit=100_000, clock=clock)
            largest = max(len(r.body) for r in receiver.received)
            found[name] = {
                "events": len(all_outbox(engine)),
                "requests": len(receiver.received),
                "largest_body_bytes": largest,
                "seconds_to_write_the_burst": round(written, 2),
            }
            assert all(row.delivered_at is not None for row in all_outbox(engine))
    return found


def rate(engine: Engine, url: str, notifications: int, loops: int) -> float:
    """Notifications/s, one an event."""
    fresh(engine)
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(notifications)])
    with receiving() as receiver:
        to = {"pager": to_webhook(receiver.url)}
        engines = [connect(url) for _ in range(loops)]
        threads = [threading.Thread(target=deliver_due, args=(own, to, notifications)) for own in engines]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - start
        assert len(receiver.received) == notifications
    for own in engines:
        own.dispose()
    return round(notifications / took, 1)


def judged(name: str, engine: Engine, receiver: Receiver, recovered: float | None = None, note: str = "") -> Fault:
    """What arrived (answers of 2xx) against what the tables hold."""
    answers = [_status(receiver, n) for n in range(len(receiver.received))]
    taken = [r for r, status in zip(receiver.received, answers, strict=True) if 200 <= status < 300]
    ids = Counter(r.headers["webhook-id"] for r in taken)
    bodies = {(r.headers["webhook-id"], r.body) for r in receiver.received}
    every = {r.headers["webhook-id"] for r in receiver.received}
    rows = all_outbox(engine)
    lost = sum(f"msg_{row.page_id.hex if row.page_id else ''}" not in ids for row in rows)
    return Fault(
        name,
        len(rows),
        len(receiver.received),
        lost,
        sum(ids.values()) - len(ids),
        len(bodies) - len(every),
        recovered,
        note,
    )


def _status(receiver: Receiver, n: int) -> int:
    reply = receiver.replies[min(n, len(receiver.replies) - 1)]
    return 0 if reply.raw is not None else reply.status


def through(engine: Engine, name: str, replies: list[Reply], events: int, note: str = "", **options: Any) -> Fault:
    """Events to one webhook, looked at each ten seconds of the loop's clock until all has arrived."""
    fresh(engine)
    clock = FakeClock()
    with receiving() as receiver:
        receiver.replies = replies
        to = {"pager": to_webhook(receiver.url, **options)}
        open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(events)])
        start = clock.now
        for _ in range(2000):
            deliver_due(engine, to, clock=clock)
            if all(row.delivered_at is not None for row in all_outbox(engine)):
                break
            clock.sleep(10)
        return judged(name, engine, receiver, (clock.now - start).total_seconds(), note)


def an_hour_away(engine: Engine, grouped: bool) -> Fault:
    """The receiver answers 503 for an hour, while a new tenant is flagged each minute."""
    fresh(engine)
    clock = FakeClock()
    with receiving() as receiver:
        receiver.replies = [Reply(503)]
        to = {"pager": to_webhook(receiver.url, **(GROUPED if grouped else {}))}
        for minute in range(60):
            open_alerts(engine, [flagged(minute, tenant=f"t{minute}")])
            for _ in range(6):
                deliver_due(engine, to, clock=clock)
                clock.sleep(10)
        tried = len(receiver.received)
        receiver.replies = [Reply(503)] * tried + [Reply(200)]
        back = clock.now
        while any(row.delivered_at is None for row in all_outbox(engine)):
            deliver_due(engine, to, clock=clock)
            clock.sleep(10)
        name = "away for an hour" + (", grouped" if grouped else ", a page an event")
        note = f"{tried} requests while it was away, {len(receiver.received) - tried} after its return"
        return judged(name, engine, receiver, (clock.now - back).total_seconds(), note)


def gone(engine: Engine) -> Fault:
    """410, and the owner mends the address."""
    fresh(engine)
    clock = FakeClock()
    with receiving() as receiver:
        receiver.replies = [Reply(410), Reply(200)]
        open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(20)])
        to = {"pager": to_webhook(receiver.url)}
        deliver_due(engine, to, clock=clock)
        clock.sleep(86400)
        deliver_due(engine, to, clock=clock)
        silent = len(receiver.received)
        deliver_due(engine, {"pager": to_webhook(receiver.url + "/new")}, clock=clock)
        return judged("410, mended a day later", engine, receiver, note=f"{silent} request until it was mended")


def two_loops(engine: Engine, url: str, events: int) -> Fault:
    fresh(engine)
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(events)])
    with receiving() as receiver:
        engines = [connect(url) for _ in range(2)]
        to = {"pager": to_webhook(receiver.url)}
        threads = [threading.Thread(target=deliver_due, args=(own, to, events)) for own in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for own in engines:
            own.dispose()
        return judged("two loops at once", engine, receiver)


def killed(engine: Engine, url: str, events: int, kills: int) -> Fault:
    """kill -9 of one of two loops at random points, while answers take 20 ms."""
    fresh(engine)
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(events)])
    chance = random.Random(6)
    with receiving() as receiver:
        receiver.replies = [Reply(seconds=0.02)]
        command = [sys.executable, "-m", "benchmarks.support.sender_process", url, receiver.url]
        with subprocess.Popen(command, cwd=ROOT) as survivor:
            for _ in range(kills):
                with subprocess.Popen(command, cwd=ROOT) as victim:
                    time.sleep(chance.uniform(0.8, 2.0))
                    victim.send_signal(signal.SIGKILL)
                open_alerts(engine, [flagged(0, tenant=f"late{time.time_ns()}") for _ in range(1)])
            start = time.perf_counter()
            while any(row.delivered_at is None for row in all_outbox(engine)):
                time.sleep(0.1)
            took = round(time.perf_counter() - start, 1)
            survivor.kill()
        return judged(f"kill -9 of a loop, {kills} times", engine, receiver, took, "a lease of 1 s here, 30 s in awry")


def killed_in_hand(engine: Engine, url: str, times: int) -> Fault:
    """kill -9 when the receiver has taken the notification and nothing is written down yet."""
    fresh(engine)
    with receiving() as receiver:
        command = [sys.executable, "-m", "benchmarks.support.sender_process", url, receiver.url]
        for n in range(times):
            open_alerts(engine, [flagged(n, tenant=f"t{n}")])
            with subprocess.Popen([*command, "stand still"], cwd=ROOT, stdout=subprocess.PIPE) as victim:
                assert victim.stdout is not None
                victim.stdout.readline()
                victim.send_signal(signal.SIGKILL)
        with subprocess.Popen(command, cwd=ROOT) as heir:
            while any(row.delivered_at is None for row in all_outbox(engine)):
                time.sleep(0.1)
            heir.kill()
        return judged(f"kill -9 between sending and writing, {times} times", engine, receiver)


def faults(engine: Engine, url: str, *, quick: bool) -> list[Fault]:
    number = 10 if quick else 100
    few = 5 if quick else 20
    mixed = [Reply(503) if n % 3 == 1 else Reply() for n in range(10_000)]
    return [
        an_hour_away(engine, grouped=True),
        an_hour_away(engine, grouped=False),
        through(engine, "every third answer is a 503", mixed, number),
        through(engine, "429 with Retry-After: 600, once", [Reply(429, {"retry-after": "600"}), Reply()], number),
        through(engine, "redirect, three times", [Reply(302, {"location": "/x"})] * 3 + [Reply()], few),
        through(engine, "garbage instead of HTTP, three times", [Reply(raw=b"\x00garbage\r\n")] * 3 + [Reply()], few),
        through(
            engine,
            "slow: half a second an answer",
            [Reply(seconds=0.5)],
            few,
            "one after the other; other destinations do not wait",
        ),
        through(engine, "a page refused (400) three times", [Reply(400)] * 3 + [Reply()], few),
        gone(engine),
        two_loops(engine, url, 5 * number),
        killed(engine, url, number, 2 if quick else 12),
        killed_in_hand(engine, url, 1 if quick else 5),
    ]


def markdown(report: dict[str, Any]) -> str:
    lines = ["| destination | events | requests | largest body, bytes |", "|---|---|---|---|"]
    for name, found in report["burst"]["destinations"].items():
        lines.append(f"| {name} | {found['events']} | {found['requests']} | {found['largest_body_bytes']} |")
    lines += [
        "",
        "| fault | events | requests | lost | repeats | repeats that differ | recovered after | note |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in report["faults"]:
        after = "" if one["seconds_to_recover"] is None else f"{one['seconds_to_recover']:g} s"
        lines.append(
            f"| {one['fault']} | {one['events']} | {one['requests']} | {one['lost']} | {one['repeats']} "
            f"| {one['repeats_that_differ']} | {after} | {one['note']} |"
        )
    return "\n".join([*lines, "", f"pages/s: {report['pages_per_second']}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="a few of each: whether it runs")
    arguments = parser.parse_args()
    messages = 100 if arguments.quick else 1000
    folder = Path(tempfile.mkdtemp(prefix="awry-bench-"))
    folder.chmod(0o755)
    url = embedded_url(folder)
    engine = connect(url)
    upgrade(engine)
    report = {
        "command": "python -m benchmarks.delivery" + (" --quick" if arguments.quick else ""),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "burst": {"messages": messages, "tenants": TENANTS, "destinations": notifications_of_a_burst(engine, messages)},
        "pages_per_second": {
            "one loop": rate(engine, url, messages, 1),
            "two loops": rate(engine, url, messages, 2),
        },
        "faults": [asdict(one) for one in faults(engine, url, quick=arguments.quick)],
    }
    engine.dispose()
    print(markdown(report))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
