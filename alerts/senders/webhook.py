"""A webhook, signed as in Standard Webhooks: headers webhook-id, webhook-timestamp, webhook-signature.

Contract: success is 2xx only. The body is the notification as compact JSON, or as OCSF or ECS. While secrets are
rotated there are several: the header then has a signature by each, and the receiver may check any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

from alerts.destinations import Format
from alerts.formats import render
from alerts.senders.base import Notification
from alerts.senders.http import Poster


class WebhookSender:
    """Posts notifications to one URL, signed with each of its `whsec_` secrets."""

    def __init__(self, poster: Poster, secrets: Sequence[str], form: Format = "awry") -> None:
        self._poster = poster
        self._signers = [Webhook(secret) for secret in secrets]
        self._form = form

    def send(self, notification: Notification) -> None:
        payload = render(notification, self._form)
        now = datetime.now(UTC)
        key = f"msg_{notification.id.hex}"
        headers = {
            "webhook-id": key,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signer.sign(key, now, payload) for signer in self._signers),
        }
        self._poster.post(payload.encode(), headers)
