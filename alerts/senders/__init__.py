"""Senders, one module for each kind of destination, behind the `Sender` protocol of `base`."""

from __future__ import annotations

from alerts.destinations import Destination
from alerts.senders.base import DeliveryError, Notification, Sender
from awry.errors import AwryError


class BrokenSender:
    """Of a destination that cannot be set up: its notifications wait, as of one that is away; the others go out."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def send(self, notification: Notification) -> None:  # noqa: ARG002 - the protocol's
        raise DeliveryError(f"the destination cannot be used ({self._reason}); correct it in the settings")


def make_sender(destination: Destination) -> Sender:
    """The sender of a configured destination; only its own libraries are imported. One that fails to set up is made all
    the same, and says why with each delivery."""
    try:
        return _sender(destination)
    except AwryError as error:
        return BrokenSender(str(error))
    except Exception as error:  # by class: its text may quote an address with a token in it
        return BrokenSender(type(error).__name__)


def _sender(destination: Destination) -> Sender:
    url = destination.url.get_secret_value()
    if destination.kind == "console":
        from alerts.senders.console import ConsoleSender

        return ConsoleSender()
    if destination.kind == "file":
        from alerts.senders.file import FileSender

        assert destination.path is not None  # noqa: S101 - the settings have checked it
        return FileSender(destination.path, destination.format)
    if destination.kind == "syslog":
        from alerts.senders.syslog import SyslogSender

        return SyslogSender(url, destination.format, destination.ca_file)
    if destination.kind == "apprise":
        from alerts.senders.chat import ChatSender

        return ChatSender(destination.name, url)
    return _http_sender(destination, url)


def _http_sender(destination: Destination, url: str) -> Sender:
    from alerts.senders import alertmanager, pagerduty, webhook
    from alerts.senders.http import Poster

    def poster(address: str) -> Poster:
        return Poster(
            address,
            allow_private=destination.may_be_private,
            headers={name: value.get_secret_value() for name, value in destination.headers.items()},
            proxy=destination.proxy.get_secret_value(),
            ca_file=destination.ca_file,
        )

    if destination.kind == "alertmanager":
        return alertmanager.AlertmanagerSender(poster(url.rstrip("/") + "/api/v2/alerts"))
    if destination.kind == "pagerduty":
        return pagerduty.PagerDutySender(poster(pagerduty.address(url)), destination.routing_key.get_secret_value())
    return webhook.WebhookSender(poster(url), destination.secret.get_secret_value().split(), destination.format)
