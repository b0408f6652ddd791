"""Slack, Teams, Discord, Matrix, e-mail and many others through Apprise, each with a URL in Apprise's own form.

Contract: one chat message for each notification, as plain text. Apprise reports success or failure without a reason,
and has no idempotency key: the notification's id is in the text, so that a person recognises a repeat. What Apprise
logs is dropped, since it may quote the URL with its token. Private addresses are not checked here: the URL is the
owner's.
"""

from __future__ import annotations

import logging
from typing import Literal

from alerts.senders.base import DeliveryError, Notification, kind_of_event
from alerts.text import headline, lines

_KINDS: dict[str, Literal["failure", "warning"]] = {"critical": "failure", "error": "failure", "warning": "warning"}


class ChatSender:
    """Sends to one Apprise URL."""

    def __init__(self, name: str, url: str) -> None:
        import apprise

        _silence_logs()
        # A URL that Apprise does not support is reported on the first attempt.
        asset = apprise.AppriseAsset(app_id="awry", app_desc="awry", app_url="", async_mode=False)
        self._apprise = apprise.Apprise(asset=asset)
        self._known = bool(self._apprise.add(_shortened(url)))
        self._name = name

    def send(self, notification: Notification) -> None:
        if not self._known:
            raise DeliveryError(f"destination {self._name}: url is none that Apprise knows")
        data = notification.body["data"]
        kind = _KINDS[data["severity"]] if kind_of_event(notification.event) == "firing" else "info"
        body = [*lines(data), f"page {notification.id}"]
        if "text" in data:
            body.append(f"text {data['text']}")
        delivered = self._apprise.notify(
            title=headline(notification.event, data), body="\n".join(body), notify_type=kind, body_format="text"
        )
        if not delivered:
            raise DeliveryError("Apprise could not deliver it, and says no more")


def _shortened(url: str) -> str:
    """A chat that limits the length gets the beginning, rather than rejecting the notification for ever."""
    return url if "overflow=" in url else url + ("&" if "?" in url else "?") + "overflow=truncate"


def _silence_logs() -> None:
    for name in ("apprise", "urllib3"):
        library_logger = logging.getLogger(name)
        library_logger.handlers = [logging.NullHandler()]
        library_logger.propagate = False
