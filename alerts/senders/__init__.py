"""Destinations' senders: one module each, behind the `Sender` protocol of `base`."""

from __future__ import annotations

from alerts.destinations import Destination
from alerts.senders.base import Sender


def make_sender(one: Destination) -> Sender:
    """The sender of a configured destination; only its own libraries are loaded."""
    url = one.url.get_secret_value()
    if one.kind == "console":
        from alerts.senders.console import ConsoleSender

        return ConsoleSender()
    if one.kind == "file":
        from alerts.senders.file import FileSender

        assert one.path is not None  # noqa: S101 - the settings have checked it
        return FileSender(one.path, one.format)
    if one.kind == "syslog":
        from alerts.senders.syslog import SyslogSender

        return SyslogSender(url, one.format, one.ca_file)
    if one.kind == "apprise":
        from alerts.senders.chat import ChatSender

        return ChatSender(one.name, url)
    return _by_http(one, url)


def _by_http(one: Destination, url: str) -> Sender:
    from alerts.senders import alertmanager, pagerduty, webhook
    from alerts.senders.http import Poster

    def poster(address: str) -> Poster:
        return Poster(
            address,
            allow_private=one.may_be_private,
            headers={name: value.get_secret_value() for name, value in one.headers.items()},
            proxy=one.proxy.get_secret_value(),
            ca_file=one.ca_file,
        )

    if one.kind == "alertmanager":
        return alertmanager.AlertmanagerSender(poster(url.rstrip("/") + "/api/v2/alerts"))
    if one.kind == "pagerduty":
        return pagerduty.PagerDutySender(poster(pagerduty.address(url)), one.routing_key.get_secret_value())
    return webhook.WebhookSender(poster(url), one.secret.get_secret_value().split(), one.format)
