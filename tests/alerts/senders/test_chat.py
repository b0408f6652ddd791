"""Chats and e-mail through the real Apprise, to a receiver on loopback."""

from __future__ import annotations

import json
import logging

import pytest
from sqlalchemy import Engine

from alerts.delivery.deliver import deliver_due
from alerts.links import Links
from alerts.senders.base import DeliveryError
from alerts.senders.chat import ChatSender
from alerts.text import headline, lines, summary, title
from tests.support.alerts.alert_rows import Receiver, Reply, flagged, open_alerts
from tests.support.alerts.delivery import FakeClock, carriers, configured, full_notification, place


def address(receiver: Receiver, more: str = "") -> str:
    return receiver.url.replace("http://", "json://") + "/geheim" + more


def test_a_burst_is_one_message_that_says_what_to_do(engine: Engine, receiver: Receiver) -> None:
    clock = FakeClock()
    links = Links("https://wiki.example/{rule}", "https://grafana.example/d/awry?id={alert_id}")
    to = {"chat": configured(links, name="chat", kind="apprise", url=address(receiver))}
    open_alerts(engine, [flagged(n, 0.6 + n / 10, tenant=f"t{n}") for n in range(5)], ("chat",))
    clock.sleep(10)
    assert deliver_due(engine, to, clock=clock).sent == 1, place(engine, "chat").last_error
    (got,) = receiver.received
    said = json.loads(got.body)
    assert said["title"] == "awry: opened: ERROR threshold:drift:t4:smol"
    assert (
        "ERROR threshold: drift (tenant t4, model smol): 1 message, 1.00 over 0.50 class gaps; and 4 other alerts"
        in (said["message"])
    )
    assert "also WARNING threshold: drift (tenant t3" in said["message"]
    assert "runbook https://wiki.example/threshold" in said["message"]
    assert "dashboard https://grafana.example/d/awry?id=" in said["message"]
    assert "top message topic/0/4" in said["message"]
    assert f"page {carriers(engine, 'chat')[0].id}" in said["message"], "a human knows a repeat by it"


@pytest.mark.parametrize("status", [500, 404])
def test_a_rejection_is_a_failed_attempt_that_quotes_nothing(
    receiver: Receiver, status: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.replies = [Reply(status)]
    with caplog.at_level(logging.DEBUG), pytest.raises(DeliveryError, match="Apprise could not deliver it") as found:
        ChatSender("chat", address(receiver)).send(full_notification())
    out = capsys.readouterr()
    assert "geheim" not in str(found.value) + caplog.text + out.out + out.err


def test_names_from_traffic_mention_nobody_and_break_no_line() -> None:
    hostile = "@everyone\n<!channel> @here <@U123> user@corp.example \x1b[2J"
    said = title(hostile)
    assert "@everyone" not in said
    assert "@here" not in said
    assert "<!channel>" not in said
    assert "<@U123>" not in said
    assert "user@corp.example" in said, "an address stays one that can be copied"
    assert said.isprintable() or "\u200b" in said
    assert len(said.splitlines()) == 1
    assert len(title("x" * 500)) == 80
    data = full_notification(tenant=hostile, dedup_key=hostile).body["data"]
    assert len(lines(data)[0].splitlines()) == 1
    assert "@everyone" not in headline("alert.opened", data)


def test_a_rule_on_the_monitor_itself_reads_well() -> None:
    one = full_notification(
        rule="lag",
        probe=None,
        tenant=None,
        model=None,
        conversation_id=None,
        top_message=None,
        units="messages",
        score=5000.0,
        threshold=1000.0,
    )
    assert summary(one.body["data"]) == "ERROR lag (all): 5000.00 over 1000.00 messages"
    flood = one.body["data"] | {"rule": "unscored", "kind": "monitor", "tenant": "mallory", "score": 700.0}
    assert summary(flood) == "ERROR unscored (mostly tenant mallory): 700.00 over 1000.00 messages"
    drift = flood | {"rule": "tail-drift", "probe": "drift", "score": 3.0, "threshold": 1.0}
    drift["units"] = "years without drift"
    assert summary(drift) == "ERROR tail-drift: drift (tenant mallory): 3.00 over 1.00 years without drift"


@pytest.mark.parametrize("more", ["", "?a=b"])
def test_a_notification_that_is_too_long_for_a_chat_is_cut(receiver: Receiver, more: str) -> None:
    """Rather than refused for ever."""
    sender = ChatSender("chat", address(receiver, more))
    sender._apprise[0].body_maxlen = 200
    sender.send(full_notification(group={"alerts": 9, "others": [full_notification().body["data"]] * 8, "left_out": 0}))
    assert len(json.loads(receiver.received[0].body)["message"]) <= 200
    assert len(receiver.received) == 1


def test_text_is_in_it_when_the_notification_has_it(receiver: Receiver) -> None:
    ChatSender("chat", address(receiver)).send(full_notification(text={"response": "so it went"}))
    ChatSender("chat", address(receiver)).send(full_notification())
    assert "so it went" in json.loads(receiver.received[0].body)["message"]
    assert "text" not in json.loads(receiver.received[1].body)["message"]
