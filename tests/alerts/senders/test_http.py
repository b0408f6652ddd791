"""Posting: what a receiver can do to a sender, and where it may not send."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from alerts.senders import http
from alerts.senders.base import DeliveryError
from alerts.senders.http import Poster, is_public
from tests.support.alerts.alert_rows import Receiver, Reply, receiving

LOOPBACK = "127.0.0.1"


def poster(url: str, **more: Any) -> Poster:
    return Poster(url, **{"allow_private": True} | more)


def failure(to: Poster) -> DeliveryError:
    with pytest.raises(DeliveryError) as found:
        to.post(b"{}")
    return found.value


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (500, "destination"),
        (401, "destination"),
        (404, "destination"),
        (429, "destination"),
        (302, "destination"),
        (400, "notification"),
        (413, "notification"),
        (422, "notification"),
        (410, "gone"),
    ],
)
def test_whose_fault_a_status_is(receiver: Receiver, status: int, fault: str) -> None:
    receiver.replies = [Reply(status)]
    assert (failure(poster(receiver.url)).fault, str(failure(poster(receiver.url)))) == (fault, f"status {status}")


@pytest.mark.parametrize(
    "raw",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 5000, b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000],
)
def test_garbage_is_no_delivery(receiver: Receiver, raw: bytes) -> None:
    receiver.replies = [Reply(raw=raw)]
    found = failure(poster(receiver.url))
    assert found.fault == "destination"
    assert str(found).startswith("not reachable (")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz",
    ],
)
def test_what_comes_after_the_status_does_not_matter(receiver: Receiver, raw: bytes) -> None:
    receiver.replies = [Reply(raw=raw)]
    poster(receiver.url).post(b"{}")


def test_a_receiver_that_dribbles_is_left(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, all of it never would."""
    monkeypatch.setattr(http, "TIMEOUT_SECONDS", 0.5)
    receiver.replies = [Reply(raw=b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50, drip=0.02)]
    start = time.monotonic()
    assert str(failure(poster(receiver.url))) == "no answer within 0.5 s"
    assert time.monotonic() - start < 2


def test_a_response_without_end_is_not_read(receiver: Receiver) -> None:
    receiver.replies = [Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n" + b"x" * 1_000_000)]
    poster(receiver.url).post(b"{}")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "168.63.129.16",
        "::ffff:168.63.129.16",
        "100.100.100.200",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - no listener: an address that must be refused
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
        "fec0::1",
        "192.0.0.8",
        "192.88.99.1",
        "3fff::1",
        "64:ff9b:1::7f00:1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", [LOOPBACK, "localhost", "0x7f000001", "2130706433", "127.1"])
def test_a_private_address_is_refused_however_it_is_written(receiver: Receiver, host: str) -> None:
    url = receiver.url.replace(LOOPBACK, host)
    assert str(failure(poster(url, allow_private=False))) == (
        "a private address: set allow_private = true where that is meant"
    )
    assert receiver.received == []


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> Callable[[], int]:
    """The name server gives these answers, one a question; returns how often it was asked."""
    asked = 0
    real = socket.getaddrinfo

    def answer(host: str, port: Any, *args: Any, **more: Any) -> Any:
        nonlocal asked
        if host != "hooks.example":
            return real(host, port, *args, **more)
        asked += 1
        found = answers[min(asked, len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return lambda: asked


def test_a_name_with_one_private_address_is_refused(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["93.184.216.34", LOOPBACK])
    url = receiver.url.replace(LOOPBACK, "hooks.example")
    assert "private address" in str(failure(poster(url, allow_private=False)))
    assert receiver.received == []


def test_a_name_that_changes_its_address_after_the_check_is_not_asked_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is checked, loopback when it is connected to."""
    asked = resolving(monkeypatch, ["192.0.2.7"], [LOOPBACK])
    monkeypatch.setattr(http, "is_public", lambda address: address == "192.0.2.7")
    monkeypatch.setattr(http, "TIMEOUT_SECONDS", 0.3)
    failure(poster(receiver.url.replace(LOOPBACK, "hooks.example"), allow_private=False))
    assert asked() == 1
    assert receiver.received == []


def test_the_next_address_is_tried(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["127.0.0.99", LOOPBACK])
    poster(receiver.url.replace(LOOPBACK, "hooks.example")).post(b"{}")
    assert len(receiver.received) == 1
    assert receiver.received[0].headers["host"].startswith("hooks.example:")


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror(-2, "geheim")))
    assert str(failure(poster("http://hooks.example/"))) == "not reachable (ConnectError)"


def test_the_environments_proxy_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        poster(receiver.url).post(b"{}")
        assert (len(receiver.received), len(proxy.received)) == (1, 0)


def test_a_destinations_own_proxy_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        poster("http://hooks.example/x", proxy=proxy.url, allow_private=False).post(b"{}")
        assert [r.path for r in proxy.received] == ["http://hooks.example/x"]


def test_headers_and_a_login_in_the_address(receiver: Receiver) -> None:
    url = receiver.url.replace("http://", "http://awry:p%40ss@")
    poster(url + "/a?b=c", headers={"x-scope-orgid": "soc"}).post(b"{}")
    (got,) = receiver.received
    assert got.path == "/a?b=c"
    assert got.headers["x-scope-orgid"] == "soc"
    assert got.headers["authorization"] == "Basic " + base64.b64encode(b"awry:p@ss").decode()
    assert got.headers["user-agent"] == "awry"


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_a_failed_try(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    found = failure(poster("https://127.0.0.1:1/", ca_file=file))
    assert str(found).startswith("ca_file cannot be read (")
    assert found.fault == "destination"


def serve_tls(context: ssl.SSLContext) -> tuple[int, list[bytes]]:
    """One answer over TLS, and what came."""
    listener = socket.create_server((LOOPBACK, 0))
    got: list[bytes] = []

    def answer() -> None:
        with listener:
            plain, _ = listener.accept()
            try:
                with context.wrap_socket(plain, server_side=True) as secure:
                    read = b""
                    while not read.endswith(b"}"):
                        read += secure.recv(65536)
                    got.append(read)
                    secure.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            except ssl.SSLError:
                plain.close()

    threading.Thread(target=answer, daemon=True).start()
    return int(listener.getsockname()[1]), got


@pytest.mark.parametrize("known", [True, False])
def test_certificates_are_checked(tmp_path: Path, known: bool) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path / "ca.pem"
    (authority if known else stranger).cert_pem.write_to_path(str(file))
    port, got = serve_tls(context)
    to = poster(f"https://localhost:{port}/", ca_file=file)
    if known:
        to.post(b'{"a":1}')
        assert got[0].endswith(b'{"a":1}')
    else:
        assert str(failure(to)) == "not reachable (ConnectError)"
