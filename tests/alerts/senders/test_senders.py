"""The sender of each kind of destination."""

from __future__ import annotations

import pytest

from alerts.delivery.channel import make_channels
from alerts.destinations import KINDS, Destination
from alerts.senders.alertmanager import AlertmanagerSender
from alerts.senders.base import DeliveryError
from alerts.senders.chat import ChatSender
from alerts.senders.console import ConsoleSender
from alerts.senders.file import FileSender
from alerts.senders.pagerduty import PagerDutySender
from alerts.senders.syslog import SyslogSender
from alerts.senders.webhook import WebhookSender
from tests.support.alerts.delivery import VALID_OPTIONS, full_notification, valid_destination

SENDERS: dict[str, type] = {
    "console": ConsoleSender,
    "webhook": WebhookSender,
    "alertmanager": AlertmanagerSender,
    "pagerduty": PagerDutySender,
    "apprise": ChatSender,
    "syslog": SyslogSender,
    "file": FileSender,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_sender(kind: str) -> None:
    destination = valid_destination(kind)
    assert isinstance(make_channels([destination])["d"].sender, SENDERS[kind])
    for value in VALID_OPTIONS[kind].values():
        assert kind == "file" or value not in repr(destination)


def test_a_url_that_apprise_does_not_support_is_a_failed_attempt() -> None:
    sender = make_channels([valid_destination("apprise", url="nosuch://geheim")])["d"].sender
    with pytest.raises(DeliveryError, match="url is none that Apprise knows") as found:
        sender.send(full_notification())
    assert "geheim" not in str(found.value)


def test_a_destination_that_cannot_be_set_up_ends_none_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("geheim")

    monkeypatch.setattr("alerts.senders.http.Poster.__init__", refuse)
    made = make_channels([valid_destination("webhook"), Destination(name="console", kind="console")])
    assert isinstance(made["console"].sender, ConsoleSender)
    with pytest.raises(DeliveryError, match=r"cannot be used \(ValueError\); correct it in the settings") as found:
        made["d"].sender.send(full_notification())
    assert found.value.fault == "destination"
