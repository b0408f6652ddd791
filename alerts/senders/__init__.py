"""Senders, one module for each kind of destination, behind the `Sender` protocol of `base`."""

from __future__ import annotations

from alerts.destinations import Destination
from alerts.senders.base import Sender


def make_sender(destination: Destination) -> Sender:
    """The sender of a configured destination; only its own libraries are imported."""
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
