"""Slow and many clients: whoever keeps the server waiting goes, the others are answered, and the log stays short."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from monitor.telemetry import logs
from monitor.telemetry.http_server import bind, connections_at_most, running
from monitor.telemetry.throttle import EVERY_SECONDS, Throttle
from tests.support import ROOT

# A server that may have so many files open, as a careless unit file says.
FILES = 120
PROGRAM = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))
from monitor.telemetry import health, logs
logs.configure()
with health.serving("127.0.0.1:0", live=lambda: None, ready=lambda: None) as server:
    print(server.address, flush=True)
    time.sleep(600)
"""


async def _echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await request.body())


async def _slow(_: Request) -> PlainTextResponse:
    await asyncio.sleep(1)
    return PlainTextResponse("done")


@contextmanager
def served(**limits: float) -> Iterator[tuple[str, int]]:
    listener = bind("127.0.0.1", 0)
    app = Starlette(routes=[Route("/echo", _echo, methods=["POST"]), Route("/slow", _slow)])
    with running(app, listener, name="test", stop_seconds=1, **limits):  # type: ignore[arg-type]
        yield "127.0.0.1", listener.getsockname()[1]


def ask(address: str) -> int:
    with urllib.request.urlopen(f"http://{address}/healthz", timeout=10) as answer:
        return int(answer.status)


@pytest.mark.slow
def test_half_requests_over_a_low_limit_of_files_leave_the_health_check_and_the_log_alone(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(files=FILES)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        host, port = address.rsplit(":", 1)
        with ExitStack() as stack:
            for n in range(3 * FILES):
                slow = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
                slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n" if n % 2 else b"")
                if n % 60 == 0:
                    assert ask(address) == 200
            assert [ask(address) for _ in range(5)] == [200] * 5
        assert ask(address) == 200
    finally:
        server.terminate()
        server.wait(20)
    lines = (tmp_path / "stderr").read_text().splitlines()
    assert len(lines) < 20
    for line in lines:
        assert json.loads(line)["event"]


def test_the_one_that_waits_longest_goes_and_one_at_work_stays() -> None:
    with served(max_connections=3) as where, ExitStack() as stack:

        def connected(said: bytes) -> socket.socket:
            client = stack.enter_context(socket.create_connection(where, timeout=10))
            client.sendall(said)
            time.sleep(0.1)
            return client

        at_work = connected(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        oldest = connected(b"GET /")
        newer = connected(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        last = connected(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab")
        assert oldest.recv(100) == b""
        assert last.recv(1000).startswith(b"HTTP/1.1 200")
        newer.sendall(b"b")
        assert newer.recv(1000).startswith(b"HTTP/1.1 200")
        assert at_work.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_body_that_does_not_come_ends_the_connection() -> None:
    with served(body_seconds=1.5) as where, socket.create_connection(where, timeout=10) as slow:
        slow.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        for _ in range(3):
            slow.sendall(b"a")
            time.sleep(0.05)
        assert slow.recv(1000) == b""


def test_a_body_in_time_is_not_cut_off_and_the_connection_is_used_again() -> None:
    with served(body_seconds=2.0) as where, socket.create_connection(where, timeout=10) as client:
        for _ in range(3):
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
            time.sleep(0.8)
            client.sendall(b"b")
            got = b""
            while not got.endswith(b"\r\n\r\nab"):
                part = client.recv(1000)
                assert part
                got += part


def test_the_limit_of_files_bounds_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(files: int) -> int:
        monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
        return connections_at_most(512)

    assert [limit(files) for files in (1_000_000, 220, 80, 4)] == [512, 156, 20, 1]
    assert limit(-1) == 512  # none


@pytest.fixture
def our_logs() -> Iterator[None]:
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in logs._LIBRARIES}
    logs.configure()
    yield
    for name, (handlers, propagate) in before.items():
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = handlers, propagate


def test_the_loops_and_the_parsers_lines_are_json_once_and_without_what_they_quote(
    our_logs: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("asyncio", "python_multipart.multipart"):
        for n in range(1000):
            try:
                raise OSError("CANARY")
            except OSError:
                logging.getLogger(name).error("no accept\nfuture: <Task exception=ValueError('CANARY')>", exc_info=True)
            logging.getLogger(name).warning("again %d", n)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line.get("error")) for line in lines] == [("no accept", "OSError"), ("again 0", None)] * 2


def test_a_throttle_says_how_many_it_left_out() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    assert [throttle("a"), throttle("a"), throttle("b"), throttle("a")] == [0, None, 0, None]
    now[0] += EVERY_SECONDS
    assert [throttle("a"), throttle("a")] == [2, None]
    for n in range(1000):
        throttle(str(n))
    assert throttle("a") == 0  # forgotten
