"""A webhook signed after Standard Webhooks: headers webhook-id, webhook-timestamp, webhook-signature.

Success is 2xx only; redirects are not followed; 410 means gone for good. The body is the event as compact JSON and
holds ids and scores, no prompt text. Errors name the status or the kind of failure, never the URL's secrets.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2
from standardwebhooks.webhooks import Webhook

from alerts.senders.base import DeliveryError, Event

TIMEOUT_SECONDS = 15.0


class WebhookSender:
    """Posts events to one URL with one `whsec_` secret."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._signer = Webhook(secret)
        self._client = httpx2.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False)

    def send(self, event: Event) -> None:
        payload = json.dumps(event.body, separators=(",", ":"), ensure_ascii=False)
        now = datetime.now(UTC)
        key = f"msg_{event.id.hex}"
        headers = {
            "content-type": "application/json",
            "webhook-id": key,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(key, now, payload),
        }
        try:
            response = self._client.post(self._url, content=payload.encode(), headers=headers)
        except httpx2.TimeoutException:
            raise DeliveryError(f"no answer within {TIMEOUT_SECONDS:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise DeliveryError(f"not reachable ({type(error).__name__})") from None
        if response.is_success:
            return
        raise DeliveryError(
            f"status {response.status_code}",
            gone=response.status_code == 410,
            retry_after=_retry_after(response.headers.get("retry-after")),
        )


def _retry_after(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
