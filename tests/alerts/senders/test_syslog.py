"""Syslog, byte for byte, over real sockets."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import Engine

from alerts.delivery.deliver import deliver_due
from alerts.senders import syslog
from alerts.senders.base import DeliveryError
from alerts.senders.syslog import SyslogSender
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.delivery import channel, full_notification

LOOPBACK = "127.0.0.1"


# RFC 5424, section 6.
MESSAGE = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<host>[!-~]{1,255}) awry (?P<pid>\d+) "
    rb'(?P<id>[!-~]{1,32}) (?P<data>\[awry@32473( [!-~]+="([^"\\\]]|\\["\\\]])*")+\]) (?P<body>\{.*\})',
    re.DOTALL,
)


def check(message: bytes) -> dict[str, Any]:
    found = MESSAGE.fullmatch(message)
    assert found is not None, message
    assert message.isascii()
    # local0, error.
    assert (found["pri"], found["id"]) == (b"131", b"alert.opened")
    assert f'alert="{full_notification().body["data"]["alert_id"]}"'.encode() in found["data"]
    body: dict[str, Any] = json.loads(found["body"])
    return body


def test_syslog_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind((LOOPBACK, 0))
        SyslogSender(f"syslog+udp://{LOOPBACK}:{collector.getsockname()[1]}", "ocsf").send(full_notification())
        assert check(collector.recv(65536))["class_uid"] == 2004


class Collector:
    """Takes one connection, with TLS where a context is given, and reads it to its end."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self.got = b""
        self._context = context
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener:
            plain, _ = self._listener.accept()
        try:
            if self._context is None:
                made: socket.socket = plain
            else:
                made = self._context.wrap_socket(plain, server_side=True)
            with made:
                while chunk := made.recv(4096):
                    self.got += chunk
                if isinstance(made, ssl.SSLSocket):
                    made.unwrap()
        except OSError:
            plain.close()

    def message(self) -> bytes:
        """What was framed by its length."""
        self._thread.join(10)
        length, _, message = self.got.partition(b" ")
        assert int(length) == len(message)
        return message


def test_syslog_over_tcp_is_framed_by_its_length() -> None:
    collector = Collector()
    SyslogSender(f"syslog+tcp://{LOOPBACK}:{collector.port}", "awry").send(full_notification())
    assert check(collector.message()) == full_notification().body


@pytest.mark.parametrize("known", [True, False])
def test_syslog_over_tls_checks_the_certificate(tmp_path: Path, known: bool) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "ca.pem"
    (authority if known else stranger).cert_pem.write_to_path(str(file))
    collector = Collector(context)
    sender = SyslogSender(f"syslog+tls://localhost:{collector.port}", "ecs", file)
    if known:
        sender.send(full_notification())
        assert check(collector.message())["ecs"]["version"]
    else:
        with pytest.raises(DeliveryError, match="SSLCertVerificationError"):
            sender.send(full_notification())
        assert collector.got == b""


def test_a_collector_that_is_down_gets_it_later(engine: Engine) -> None:
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    open_alerts(engine, [flagged(1)], ("siem",))
    done = deliver_due(engine, {"siem": channel(SyslogSender(f"syslog+tcp://{LOOPBACK}:{port}", "awry"))})
    assert (done.sent, done.failed) == (0, 1)


def test_a_collector_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server((LOOPBACK, 0)) as deaf:
        sender = SyslogSender(f"syslog+tcp://{LOOPBACK}:{deaf.getsockname()[1]}", "awry")
        with pytest.raises(DeliveryError, match=r"no answer within 0\.2 s"):
            sender.send(full_notification())


def test_structured_data_cannot_be_broken_out_of() -> None:
    hostile = full_notification(rule='a"]\\ \n[x', alert_id='"] <0>1 forged')
    line = syslog.line(hostile, "awry", hostile.created_at)
    assert MESSAGE.fullmatch(line.encode())
    assert r'rule="a\"\]\\ ?[x"' in line
    assert "\n" not in line
