"""Signatures of webhooks."""

from __future__ import annotations

import base64
import json

import pytest
from sqlalchemy import Engine
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from alerts.delivery.deliver import deliver_due
from alerts.senders.webhook import WebhookSender
from tests.support.alerts.alert_rows import SECRET, Receiver, flagged, open_alerts
from tests.support.alerts.delivery import (
    channels,
    configured,
    to_webhook,
)


def test_a_changed_body_does_not_verify(alert_in_outbox: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    deliver_due(alert_in_outbox, channels("pager", sender=sender))
    (got,) = receiver.received
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(got.body.replace(b"shop", b"bank"), got.headers)


def test_while_secrets_are_rotated_either_verifies(alert_in_outbox: Engine, receiver: Receiver) -> None:
    new = "whsec_" + base64.b64encode(bytes(range(40, 80))).decode()
    deliver_due(alert_in_outbox, {"pager": to_webhook(receiver.url, secret=f"{new} {SECRET}")})
    (got,) = receiver.received
    signatures = got.headers["webhook-signature"].split(" ")
    assert len(set(signatures)) == 2
    assert all(signature.startswith("v1,") for signature in signatures)
    for known in (new, SECRET):
        Webhook(known).verify(got.body, got.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(bytes(32)).decode()).verify(got.body, got.headers)


def test_text_of_any_script_verifies(engine: Engine, receiver: Receiver, sender: WebhookSender) -> None:
    open_alerts(engine, [flagged(tenant="Zürich 東京 \U0001f600\u2028")])
    deliver_due(engine, channels("pager", sender=sender))
    (got,) = receiver.received
    assert Webhook(SECRET).verify(got.body, got.headers)["data"]["tenant"] == "Zürich 東京 \U0001f600\u2028"


def test_a_webhook_that_wants_ocsf_gets_an_event_each(engine: Engine, receiver: Receiver) -> None:
    to = {
        "pager": configured(
            name="pager", kind="webhook", url=receiver.url, secret=SECRET, allow_private=True, format="ocsf"
        )
    }
    open_alerts(engine, [flagged(1, tenant="a"), flagged(2, tenant="b")])
    assert deliver_due(engine, to).sent == 2
    assert {json.loads(r.body)["metadata"]["tenant_uid"] for r in receiver.received} == {"a", "b"}
