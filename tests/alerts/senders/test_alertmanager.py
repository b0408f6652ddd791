"""A real Alertmanager takes the alerts, shows them firing, and then resolved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, text, update

from alerts.delivery.deliver import deliver_due
from alerts.delivery.resend import RESEND_ENDED
from alerts.links import Links
from storage.schema import alerts
from tests.conftest import needs_program
from tests.monitor.telemetry.test_prometheus import PATIENCE_SECONDS, eventually, free_port
from tests.support.alerts.alert_rows import Receiver, Reply, all_outbox, flagged, open_alerts, receiving
from tests.support.alerts.delivery import FakeClock, configured, place

INSTALL = "apt-get install prometheus-alertmanager"
LINKS = Links("https://wiki.example/{rule}", "https://grafana.example/d/awry?id={alert_id}")
CONFIG = """
route:
  receiver: soc
  group_by: [alertname, probe]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: soc
    webhook_configs:
      - url: {url}/hook
        send_resolved: true
"""


class Alertmanager:
    """The HTTP API of a running one."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310 - loopback
                body = answer.read()
        except (urllib.error.URLError, ConnectionError):
            return None
        return json.loads(body) if path.startswith("/api/") else body

    def firing(self) -> dict[str, Any]:
        """Active alerts by severity and tenant."""
        found = self.get("/api/v2/alerts?active=true")
        return {f"{a['labels']['severity']} {a['labels'].get('tenant')}": a for a in found}


@contextmanager
def running(folder: Path, hook: str) -> Iterator[Alertmanager]:
    program = needs_program("prometheus-alertmanager", INSTALL)
    config, log, port = folder / "alertmanager.yml", folder / "alertmanager.log", free_port()
    config.write_text(CONFIG.format(url=hook))
    command = [
        program,
        f"--config.file={config}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=folder) as process:
        api = Alertmanager(port)

        def ready() -> bool | None:
            assert process.poll() is None, log.read_text()
            return True if api.get("/-/ready") is not None else None

        try:
            eventually(ready, "Alertmanager starts")
            yield api
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def until(look: Callable[[], bool], what: str) -> None:
    eventually(lambda: True if look() else None, what)


def resolve(engine: Engine, tenant: str, ago: str = "0 s") -> None:
    with engine.begin() as connection:
        at = func.now() - text(f"interval '{ago}'")
        changes = {"state": "resolved", "resolved_at": at}
        connection.execute(update(alerts).where(alerts.c.tenant == tenant).values(changes))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a Unix program")
def test_a_real_one_shows_them_firing_and_resolved(engine: Engine, tmp_path: Path) -> None:
    with receiving() as hook, running(tmp_path, hook.url) as manager:
        to = {"am": configured(LINKS, name="am", kind="alertmanager", url=manager.url, resend_seconds=1)}
        open_alerts(engine, [flagged(1, tenant="shop"), flagged(2, 1.2, tenant="bank")], ("am",))
        assert deliver_due(engine, to).sent == 2, "the event, and all firing alerts"
        until(lambda: set(manager.firing()) == {"warning shop", "error bank"}, "both fire")
        shop = manager.firing()["warning shop"]
        assert shop["labels"] == {
            "alertname": "awry",
            "rule": "threshold",
            "kind": "threshold",
            "severity": "warning",
            "probe": "drift",
            "tenant": "shop",
            "model": "smol",
        }
        assert shop["annotations"]["runbook_url"] == "https://wiki.example/threshold"
        assert shop["annotations"]["top_message"] == "topic/0/1"
        assert shop["generatorURL"] == f"https://grafana.example/d/awry?id={shop['annotations']['alert_id']}"

        # Graver: it fires as what it is now, and no longer as what it was.
        open_alerts(engine, [flagged(3, 2.0, tenant="shop")], ("am",))
        deliver_due(engine, to)
        until(lambda: set(manager.firing()) == {"critical shop", "error bank"}, "the more severe one fires alone")

        resolve(engine, "shop")
        time.sleep(1.1)
        deliver_due(engine, to)
        until(lambda: set(manager.firing()) == {"error bank"}, "one is resolved")
        # What it sent to its own receiver.
        until(lambda: any(_resolved(r.body, "critical", "shop") for r in hook.received), "it tells of the end")


def _resolved(body: bytes, severity: str, tenant: str) -> bool:
    return any(
        a["status"] == "resolved" and (a["labels"]["severity"], a["labels"]["tenant"]) == (severity, tenant)
        for a in json.loads(body)["alerts"]
    )


def posted(receiver: Receiver) -> list[dict[str, Any]]:
    """The alerts of the last post."""
    found: list[dict[str, Any]] = json.loads(receiver.received[-1].body)
    return found


def test_firing_alerts_are_sent_again_and_again(engine: Engine, receiver: Receiver, clock: FakeClock) -> None:
    to = {"am": configured(name="am", kind="alertmanager", url=receiver.url + "/prefix/")}
    deliver_due(engine, to, clock=clock)
    assert receiver.received == [], "nothing stands, nothing is said"
    open_alerts(engine, [flagged(1)], ("am", "other"))
    open_alerts(engine, [flagged(2, tenant="not-told")], ("other",))
    for minutes in range(1, 11):
        clock.sleep(61)
        deliver_due(engine, to, clock=clock)
        (one,) = posted(receiver)
        assert one["labels"]["tenant"] == "shop"
        assert datetime.fromisoformat(one["endsAt"]) == clock.now + timedelta(minutes=5)
        assert len(receiver.received) >= minutes
    count = len(receiver.received)
    clock.sleep(30)
    deliver_due(engine, to, clock=clock)
    assert len(receiver.received) == count
    assert {r.path for r in receiver.received} == {"/prefix/api/v2/alerts"}
    assert all_outbox(engine)[0].attempts == 1


def test_the_end_is_sent_for_a_while_then_no_more(engine: Engine, receiver: Receiver, clock: FakeClock) -> None:
    to = {"am": configured(name="am", kind="alertmanager", url=receiver.url)}
    open_alerts(engine, [flagged(1)], ("am",))
    deliver_due(engine, to, clock=clock)
    resolve(engine, "shop")
    for _ in range(20):
        clock.sleep(61)
        deliver_due(engine, to, clock=clock)
    ended = [json.loads(r.body)[0]["endsAt"] for r in receiver.received[2:]]
    assert RESEND_ENDED.total_seconds() / 61 - 2 < len(ended) < RESEND_ENDED.total_seconds() / 61 + 1
    assert len(set(ended)) == 1
    assert datetime.fromisoformat(ended[0]) < clock.now


def test_what_ended_during_an_outage_is_sent_after_it(engine: Engine, receiver: Receiver, clock: FakeClock) -> None:
    to = {"am": configured(name="am", kind="alertmanager", url=receiver.url)}
    receiver.replies = [Reply(503)]
    open_alerts(engine, [flagged(1)], ("am",))
    for _ in range(3):
        deliver_due(engine, to, clock=clock)
        clock.sleep(1000)
    resolve(engine, "shop", ago="40 min")
    receiver.replies = [Reply(200)]
    deliver_due(engine, to, clock=clock)
    told = [one for r in receiver.received[-2:] for one in json.loads(r.body)]
    assert any(datetime.fromisoformat(one["endsAt"]) < clock.now for one in told)
    assert all_outbox(engine)[0].delivered_at is not None
    assert place(engine, "am").failures == 0


@pytest.mark.slow
def test_a_thousand_alerts_are_a_few_posts(engine: Engine, receiver: Receiver, clock: FakeClock) -> None:
    to = {"am": configured(name="am", kind="alertmanager", url=receiver.url)}
    open_alerts(engine, [flagged(n, tenant=f"t{n}") for n in range(1000)], ("am",))
    deliver_due(engine, to, clock=clock)
    told = {a["labels"]["tenant"] for r in receiver.received for a in json.loads(r.body)}
    assert len(told) == 1000
    assert len(receiver.received) <= 10


def test_a_resend_that_is_rejected_delays_no_other(engine: Engine, receiver: Receiver, clock: FakeClock) -> None:
    to = {"am": configured(name="am", kind="alertmanager", url=receiver.url)}
    open_alerts(engine, [flagged(1)], ("am",))
    receiver.replies = [Reply(200), Reply(200), Reply(400), Reply(200)]
    deliver_due(engine, to, clock=clock)
    clock.sleep(61)
    assert deliver_due(engine, to, clock=clock).failed == 1
    assert (place(engine, "am").failures, place(engine, "am").held_until) == (0, None)
    clock.sleep(61)
    assert deliver_due(engine, to, clock=clock).sent == 1


def test_of_two_alerts_with_the_same_labels_the_later_one_is_sent(
    engine: Engine, receiver: Receiver, clock: FakeClock
) -> None:
    to = {"am": configured(name="am", kind="alertmanager", url=receiver.url)}
    open_alerts(engine, [flagged(1)], ("am",))
    resolve(engine, "shop")
    open_alerts(engine, [flagged(2)], ("am",))
    deliver_due(engine, to, clock=clock)
    (one,) = posted(receiver)
    assert datetime.fromisoformat(one["endsAt"]) > clock.now


def test_silenced_alerts_end_there(engine: Engine, receiver: Receiver, clock: FakeClock) -> None:
    to = {"am": configured(name="am", kind="alertmanager", url=receiver.url)}
    open_alerts(engine, [flagged(1)], ("am",))
    deliver_due(engine, to, clock=clock)
    with engine.begin() as connection:
        connection.execute(update(alerts).values(state="silenced", silenced_at=func.now()))
    clock.sleep(61)
    deliver_due(engine, to, clock=clock)
    assert datetime.fromisoformat(posted(receiver)[0]["endsAt"]) < clock.now
