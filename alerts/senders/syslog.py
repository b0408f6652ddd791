"""Syslog for a SIEM: RFC 5424 over UDP (RFC 5426), TCP (RFC 6587, octet counting) or TLS (RFC 5425).

Contract: a message is the notification as JSON, in ASCII, with its ids as structured data. Syslog has no replies:
delivered means accepted by the other side's kernel, for UDP not even that; use a file or a webhook where that is not
enough. TCP and TLS use a connection for each message, whose orderly end shows that all of it was received.
"""

from __future__ import annotations

import os
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

from alerts.destinations import SYSLOG_SCHEMES, Format, parts_of
from alerts.formats import render
from alerts.senders.base import DeliveryError, Notification
from alerts.senders.tls import tls_context

TIMEOUT_SECONDS = 15.0
# local0, and syslog's own severities.
_FACILITY = 16
_SEVERITIES = {"warning": 4, "error": 3, "critical": 2}
# The number that RFC 5612 reserves for examples; awry has none of its own.
_ENTERPRISE = 32473


class SyslogSender:
    """Sends to one collector."""

    def __init__(self, url: str, form: Format, ca_file: Path | None = None) -> None:
        parts = parts_of(url)
        self._scheme = parts.scheme
        self._host = str(parts.hostname)
        self._port = parts.port or SYSLOG_SCHEMES[parts.scheme]
        self._form = form
        self._ca_file = ca_file

    def send(self, notification: Notification) -> None:
        message = line(notification, self._form, datetime.now(UTC)).encode("ascii")
        try:
            if self._scheme == "syslog+udp":
                self._datagram(message)
            else:
                self._stream(message)
        except TimeoutError:
            raise DeliveryError(f"no answer within {TIMEOUT_SECONDS:g} s") from None
        except OSError as error:
            raise DeliveryError(f"not reachable ({type(error).__name__})") from None

    def _datagram(self, message: bytes) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as udp:
            udp.settimeout(TIMEOUT_SECONDS)
            udp.connect(address)
            udp.send(message)

    def _stream(self, message: bytes) -> None:
        with socket.create_connection((self._host, self._port), TIMEOUT_SECONDS) as plain:
            if self._scheme == "syslog+tcp":
                _send_framed(plain, message)
                return
            with tls_context(self._ca_file).wrap_socket(plain, server_hostname=self._host) as secure:
                _send_framed(secure, message)
                secure.unwrap()


def _send_framed(connection: socket.socket, message: bytes) -> None:
    connection.sendall(b"%d %s" % (len(message), message))
    if not isinstance(connection, ssl.SSLSocket):
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass


def line(notification: Notification, form: Format, now: datetime) -> str:
    """The message as it is sent."""
    data = notification.body["data"]
    priority = _FACILITY * 8 + _SEVERITIES[data["severity"]]
    stamp = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    values = {"alert": data["alert_id"], "event": notification.id, "severity": data["severity"], "rule": data["rule"]}
    structured = " ".join(f'{name}="{_escaped(str(value))}"' for name, value in values.items())
    host = _header(socket.gethostname(), 255)
    name = _header(notification.event, 32)
    return f"<{priority}>1 {stamp} {host} awry {os.getpid()} {name} [awry@{_ENTERPRISE} {structured}] " + render(
        notification, form, ascii_only=True
    )


def _header(text: str, length: int) -> str:
    return "".join(c for c in text if "!" <= c <= "~")[:length] or "-"


def _escaped(text: str) -> str:
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    return plain.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
