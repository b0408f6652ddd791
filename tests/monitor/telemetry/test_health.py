"""The health server: what it answers, what it refuses, what it never says, and that it goes away."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from monitor.errors import SettingsError
from monitor.telemetry import health, http_server
from monitor.telemetry.health import HealthServer, serving

SECRET = "how do I pick a lock?"
# What Prometheus 2.42 sends.
PROMETHEUS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"


def well() -> None:
    return None


@contextmanager
def asking(server: HealthServer) -> Iterator[http.client.HTTPConnection]:
    host, _, port = server.address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=10)
    try:
        yield connection
    finally:
        connection.close()


class Answer:
    def __init__(self, server: HealthServer, path: str, method: str = "GET", **headers: str) -> None:
        with asking(server) as connection:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            self.status = response.status
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            self.text = response.read().decode()


@pytest.fixture(scope="module")
def server() -> Iterator[HealthServer]:
    with serving("127.0.0.1:0", live=well, ready=well) as running:
        yield running


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/readyz?verbose=1"])
def test_all_is_well(server: HealthServer, path: str) -> None:
    answer = Answer(server, path)
    assert (answer.status, answer.text) == (200, "ok\n")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["cache-control"] == "no-store"


def test_live_and_ready_are_told_apart_and_asked_each_time() -> None:
    reasons: dict[str, str | None] = {"live": None, "ready": "the model is loading"}
    with serving("127.0.0.1:0", live=lambda: reasons["live"], ready=lambda: reasons["ready"]) as running:
        assert Answer(running, "/healthz").status == 200
        first = Answer(running, "/readyz")
        assert (first.status, first.text) == (503, "the model is loading\n")
        reasons.update(live="no batch ended for 300 s", ready=None)
        second = Answer(running, "/healthz")
        assert (second.status, second.text) == (503, "no batch ended for 300 s\n")
        assert Answer(running, "/readyz").status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_check_that_raises_says_its_class_and_no_more(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    def raising() -> str | None:
        raise KeyError(SECRET)

    with serving("127.0.0.1:0", live=raising, ready=raising) as running:
        answer = Answer(running, path)
        assert (answer.status, answer.text) == (503, "KeyError\n")
        assert SECRET not in str(answer.headers)
        assert Answer(running, "/metrics").status == 200
    assert "".join(capfd.readouterr()) == ""


def test_a_collector_that_raises_says_its_class_and_no_more(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def collect(self) -> None:
            raise ValueError(SECRET)

    registry = CollectorRegistry()
    registry.register(Broken())  # type: ignore[arg-type]
    monkeypatch.setattr(health, "REGISTRY", registry)
    answer = Answer(server, "/metrics")
    assert (answer.status, answer.text) == (500, "ValueError\n")
    assert Answer(server, "/healthz").status == 200
    assert "".join(capfd.readouterr()) == ""


def test_metrics_in_the_old_format_and_in_the_new(server: HealthServer) -> None:
    plain, modern = Answer(server, "/metrics"), Answer(server, "/metrics", Accept=PROMETHEUS)
    assert plain.status == modern.status == 200
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert modern.headers["content-type"].startswith(CONTENT_TYPE_LATEST)
    assert "# TYPE awry_tokens_total counter\n" in plain.text
    assert "# TYPE awry_tokens counter\n# UNIT awry_tokens tokens\n" in modern.text
    assert modern.text.endswith("# EOF\n")


def test_head_answers_like_get_without_a_body(server: HealthServer) -> None:
    for path in ("/healthz", "/nothing"):
        get, head = Answer(server, path), Answer(server, path, "HEAD")
        assert head.text == ""
        assert (head.status, head.headers["content-length"]) == (get.status, str(len(get.text)))
    # On the wire, since the client above reads no body after HEAD whatever comes.
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw, raw.makefile("rb") as read:
        raw.sendall(b"HEAD /metrics HTTP/1.0\r\n\r\n")
        assert read.read().endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metricsx", "/healthz/..", "/../healthz", "/favicon.ico", "/%2e"])
def test_other_paths_are_not_found(server: HealthServer, path: str) -> None:
    answer = Answer(server, path)
    assert answer.status == 404
    assert "/metrics" in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/metrics", "/nothing"])
def test_other_methods_are_not_allowed(server: HealthServer, method: str, path: str) -> None:
    answer = Answer(server, path, method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_no_version_of_python_is_given_away(server: HealthServer) -> None:
    assert Answer(server, "/healthz").headers["server"].strip() == "awry"


def test_a_slow_client_keeps_nobody_waiting(server: HealthServer) -> None:
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(b"GET /metrics")
        assert Answer(server, "/healthz").status == 200


@pytest.mark.slow
@pytest.mark.parametrize("complete", [b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"])
@pytest.mark.parametrize("incomplete", [b"", b"GET /metrics"])
def test_a_client_that_sends_no_whole_request_loses_its_connection(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch, complete: bytes, incomplete: bytes
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 1.0)
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        if complete:
            slow.sendall(complete)
            assert slow.recv(4096).startswith(b"HTTP/1.1 200")
        slow.sendall(incomplete)
        while slow.recv(4096):
            pass


def test_a_client_that_sends_its_headers_byte_by_byte_loses_its_connection(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte alone comes within the time; all of them do not."""
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.4)
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.settimeout(0.05)
        for _ in range(100):
            try:
                slow.sendall(b"G")
                if not slow.recv(4096):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the connection was still open after 100 bytes")


def test_a_slow_check_keeps_nobody_waiting() -> None:
    entered, release = threading.Event(), threading.Event()

    def slow() -> str | None:
        entered.set()
        release.wait(30)
        return None

    with serving("127.0.0.1:0", live=well, ready=slow) as running:
        waiting = threading.Thread(target=Answer, args=(running, "/readyz"))
        waiting.start()
        try:
            assert entered.wait(10)
            assert Answer(running, "/healthz").status == 200
        finally:
            release.set()
            waiting.join(10)
        assert not waiting.is_alive()


@pytest.mark.slow
def test_closing_does_not_wait_for_a_check_that_hangs() -> None:
    entered, release = threading.Event(), threading.Event()

    def hanging() -> str | None:
        entered.set()
        release.wait(60)
        return None

    with serving("127.0.0.1:0", live=hanging, ready=well) as running:
        waiting = threading.Thread(target=Answer, args=(running, "/healthz"))
        waiting.start()
        assert entered.wait(10)
        started = time.monotonic()
    took = time.monotonic() - started
    release.set()
    waiting.join(10)
    assert took < 10


def test_a_client_that_hangs_up_leaves_no_trace(server: HealthServer, capfd: pytest.CaptureFixture[str]) -> None:
    host, _, port = server.address.rpartition(":")
    for sent in (b"", b"GET /metrics HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\xff\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=10) as rude:
            rude.sendall(sent)
            # A reset instead of a goodbye, so that the answer finds nobody.
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert Answer(server, "/healthz").status == 200
    assert "".join(capfd.readouterr()) == ""


def test_two_servers_on_free_ports() -> None:
    with (
        serving("127.0.0.1:0", live=well, ready=lambda: "first") as first,
        serving("127.0.0.1:0", live=well, ready=lambda: "second") as second,
    ):
        assert first.address != second.address
        assert (Answer(first, "/readyz").text, Answer(second, "/readyz").text) == ("first\n", "second\n")


def test_a_taken_port_is_a_setting_to_change(server: HealthServer) -> None:
    with (
        pytest.raises(SettingsError, match=f"^listen: {server.address} is taken.*choose another port"),
        serving(server.address, live=well, ready=well),
    ):
        pass
    assert Answer(server, "/healthz").status == 200


@pytest.mark.parametrize("fails", [False, True])
def test_closing_frees_the_port_and_ends_the_thread(fails: bool) -> None:
    others = {t for t in threading.enumerate() if t.name == "health"}
    with serving("127.0.0.1:0", live=well, ready=well) as running:
        address = running.address
    for _ in range(3):
        try:
            with serving(address, live=well, ready=well) as again:
                assert again.address == address
                assert Answer(again, "/healthz").status == 200
                if fails:
                    raise RuntimeError
        except RuntimeError:
            assert fails
        with pytest.raises(ConnectionRefusedError):
            Answer(again, "/healthz")
    assert {t for t in threading.enumerate() if t.name == "health"} == others


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "9464",
        ":9464",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "::1:9464",
        "[::1]",
        "[::1:9464",
        "http://127.0.0.1:9464",
        "127.0.0.1:9464/metrics",
        "a@127.0.0.1:9464",
        "127.0.0.1:9464\n",
        " 127.0.0.1:9464",
    ],
)
def test_an_address_that_is_none(listen: str) -> None:
    with pytest.raises(SettingsError, match=r"^listen: ") as raised, serving(listen, live=well, ready=well):
        pass
    assert "127.0.0.1:9464" in str(raised.value)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70])
def test_a_host_that_nobody_knows(host: str) -> None:
    with (
        pytest.raises(SettingsError, match=r"^listen: the host .* is not known"),
        serving(f"{host}:0", live=well, ready=well),
    ):
        pass


def test_an_address_of_another_machine() -> None:
    # 192.0.2.0/24 is for documentation: nobody has it.
    with (
        pytest.raises(SettingsError, match=r"^listen: 192\.0\.2\.1:0 is not an address of this machine"),
        serving("192.0.2.1:0", live=well, ready=well),
    ):
        pass


def test_every_refusal_of_the_system_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(error: OSError) -> Callable[..., None]:
        def bind(_self: object, _address: object) -> None:
            raise error

        return bind

    for error in (PermissionError(13, "denied"), OSError(99, "no"), OSError(5, "odd"), OSError("odder")):
        monkeypatch.setattr(socket.socket, "bind", refuse(error))
        with (
            pytest.raises(SettingsError, match=r"^listen: 127\.0\.0\.1:80 .*(choose|write)"),
            serving("127.0.0.1:80", live=well, ready=well),
        ):
            pass


def test_ipv6_is_written_in_brackets() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with serving("[::1]:0", live=well, ready=well) as running:
        assert running.address.startswith("[::1]:")
        assert Answer(running, "/healthz").status == 200


def test_nothing_is_logged(server: HealthServer, capfd: pytest.CaptureFixture[str]) -> None:
    for path in ("/metrics", "/healthz", "/nothing"):
        Answer(server, path)
    assert "".join(capfd.readouterr()) == ""
