"""Slack, Teams, Discord, Matrix, e-mail and a hundred others through Apprise: an address each, in Apprise's own form.

Contract: one notification a page, as plain text. Apprise says yes or no and not why, and knows no idempotency key: the
page's id is in the text, so that a human sees a repeat for one. What Apprise logs is dropped, since it may quote the
address with its token. There is no check for private addresses here: the address says what it is.
"""

from __future__ import annotations

import logging
from typing import Literal

from alerts.delivery.grouping import news_of
from alerts.senders.base import DeliveryError, Event
from alerts.text import headline, lines

_KINDS: dict[str, Literal["failure", "warning"]] = {"critical": "failure", "error": "failure", "warning": "warning"}


class ChatSender:
    """Speaks to one address of Apprise's."""

    def __init__(self, name: str, url: str) -> None:
        import apprise

        _quiet()
        # One that is no address of Apprise's is said when it is used: the settings were read long before.
        asset = apprise.AppriseAsset(app_id="awry", app_desc="awry", app_url="", async_mode=False)
        self._apprise = apprise.Apprise(asset=asset)
        self._known = bool(self._apprise.add(_shortened(url)))
        self._name = name

    def send(self, event: Event) -> None:
        if not self._known:
            raise DeliveryError(f"destination {self._name}: url is none that Apprise knows")
        data = event.body["data"]
        kind = _KINDS[data["severity"]] if news_of(event.event) == "firing" else "info"
        body = [*lines(data), f"page {event.id}"]
        if "text" in data:
            body.append(f"text {data['text']}")
        done = self._apprise.notify(
            title=headline(event.event, data), body="\n".join(body), notify_type=kind, body_format="text"
        )
        if not done:
            raise DeliveryError("Apprise could not deliver it, and says no more")


def _shortened(url: str) -> str:
    """A chat that takes no long messages gets their beginning, rather than refusing the page for ever."""
    return url if "overflow=" in url else url + ("&" if "?" in url else "?") + "overflow=truncate"


def _quiet() -> None:
    for name in ("apprise", "urllib3"):
        found = logging.getLogger(name)
        found.handlers = [logging.NullHandler()]
        found.propagate = False
