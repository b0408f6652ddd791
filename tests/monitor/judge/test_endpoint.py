"""A judge over real HTTP: what is sent, what is read, and that whatever comes back is an answer or a named failure."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from monitor.judge.answer import JudgeError
from monitor.judge.base import Asked
from monitor.judge.connection import MAX_ANSWER_BYTES
from monitor.judge.endpoint import EndpointJudge
from monitor.judge_settings import check_url
from tests.support.judge_server import HARMFUL, HARMLESS, JudgeServer, Said, judge_server

ASKED = Asked("drift", "Is it harmful?", '{"role": "user", "content": "hello"}')


@pytest.fixture(scope="module")
def one_server() -> Iterator[JudgeServer]:
    with judge_server() as started:
        yield started


@pytest.fixture
def server(one_server: JudgeServer) -> JudgeServer:
    one_server.forget()
    return one_server


def ask(server: JudgeServer, *says: Said, seconds: float = 10.0) -> str:
    """`harmful`, `harmless`, or the failure."""
    server.says = list(says)
    with closing(EndpointJudge(server.url, "m")) as judge:
        try:
            return "harmful" if judge.ask(ASKED, seconds).harmful else "harmless"
        except JudgeError as error:
            return error.failure


def test_the_request(server: JudgeServer) -> None:
    with closing(EndpointJudge(server.url + "/", "small", "s3cret", {"seed": 7, "temperature": None})) as judge:
        verdict = judge.ask(ASKED, 10)
        assert judge.name == f"small at {server.url.split('/')[2]}"
        assert "s3cret" not in judge.key
    assert (verdict.harmful, verdict.confidence, verdict.tokens) == (False, 0.9, 321)
    (sent,), (headers,) = server.requests, server.headers
    assert server.paths == ["/v1/chat/completions"]
    assert headers["authorization"] == "Bearer s3cret"
    assert (sent["model"], sent["max_tokens"], sent["seed"]) == ("small", 64, 7)
    assert "temperature" not in sent
    assert sent["response_format"]["type"] == "json_schema"
    assert [turn["role"] for turn in sent["messages"]] == ["system", "user"]
    assert ASKED.text in sent["messages"][1]["content"]
    assert ASKED.text not in sent["messages"][0]["content"]


def test_verdicts(server: JudgeServer) -> None:
    assert ask(server, HARMFUL) == "harmful"
    assert ask(server, HARMLESS) == "harmless"
    assert ask(server, Said("yes")) == "harmful"


def test_connections_are_kept_for_the_next_question(server: JudgeServer) -> None:
    with closing(EndpointJudge(server.url, "m")) as judge:
        for _ in range(3):
            judge.ask(ASKED, 10)
        assert len(judge._connections) == 1
        assert len(judge._connections[0]._pool.connections) == 1


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (Said("As an AI model I think it is fine."), "garbage"),
        (Said(body=b"<html>busy</html>"), "garbage"),
        (Said(body=b""), "garbage"),
        (Said(body=b"\xff\xfe"), "garbage"),
        (Said(body=b'{"choices": []}'), "garbage"),
        (Said(body=b'{"choices": [{"message": null}]}'), "garbage"),
        (Said(body=b"[" * 100_000), "garbage"),
        (Said(content=None), "garbage"),
        (Said(body=json.dumps({"choices": [{"message": {"refusal": "no"}}]}).encode()), "declined"),
        (Said(body=b'{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}'), "declined"),
        (Said(body=b"x" * (MAX_ANSWER_BYTES + 1)), "too large"),
        (Said(status=429), "rate limited"),
        (Said(status=500), "server error"),
        (Said(status=503), "server error"),
        (Said(status=401), "refused by server"),
        (Said(status=404), "refused by server"),
    ],
)
def test_whatever_comes_back_is_named(server: JudgeServer, said: Said, failure: str) -> None:
    assert ask(server, said) == failure


def test_an_answer_without_end_is_cut_off(server: JudgeServer) -> None:
    sent = 0

    def endless(send: object) -> None:
        nonlocal sent
        while True:
            send(b"x" * 65536)  # type: ignore[operator]
            sent += 65536

    assert ask(server, Said(pieces=endless)) == "too large"
    assert sent < 100 * MAX_ANSWER_BYTES


def test_a_slow_judge_is_not_waited_for(server: JudgeServer) -> None:
    ended = threading.Event()
    try:
        started = time.monotonic()
        assert ask(server, Said(before=lambda: ended.wait(30)), seconds=0.3) == "timeout"
        # Byte by byte, each in time: the deadline is of the whole.
        drip = Said(pieces=lambda send: [(send(b" "), ended.wait(0.05)) for _ in range(600)])
        assert ask(server, drip, seconds=0.5) == "timeout"
        assert time.monotonic() - started < 10
    finally:
        ended.set()


def test_a_redirect_is_not_followed(server: JudgeServer) -> None:
    with judge_server(HARMFUL) as other:
        for status in (301, 302, 307, 308):
            moved = Said(status=status, headers={"location": f"{other.url}/chat/completions"})
            assert ask(server, moved) == "refused by server"
        assert other.requests == []


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with closing(EndpointJudge(f"http://127.0.0.1:{port}/v1", "m")) as judge, pytest.raises(JudgeError) as failed:
        judge.ask(ASKED, 5)
    assert (failed.value.failure, failed.value.again, failed.value.down) == ("unreachable", True, True)


def test_what_speaks_no_http() -> None:
    with socket.socket() as odd:
        odd.bind(("127.0.0.1", 0))
        odd.listen()

        def answer() -> None:
            taken, _ = odd.accept()
            taken.recv(65536)
            taken.sendall(b"220 smtp ready\r\n")
            taken.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{odd.getsockname()[1]}/v1"
        with closing(EndpointJudge(url, "m")) as judge, pytest.raises(JudgeError) as failed:
            judge.ask(ASKED, 5)
        thread.join()
    assert failed.value.failure == "unreachable"


@pytest.mark.parametrize(("status", "down"), [(400, False), (413, False), (422, False), (403, True), (500, True)])
def test_a_message_that_is_refused_is_no_judge_that_is_down(server: JudgeServer, status: int, down: bool) -> None:
    server.says = [Said(status=status)]
    with closing(EndpointJudge(server.url, "m")) as judge, pytest.raises(JudgeError) as failed:
        judge.ask(ASKED, 5)
    assert failed.value.down is down


def test_retry_after_is_read(server: JudgeServer) -> None:
    server.says = [Said(status=429, headers={"retry-after": "7"})]
    with closing(EndpointJudge(server.url, "m")) as judge, pytest.raises(JudgeError) as failed:
        judge.ask(ASKED, 5)
    assert (failed.value.retry_after, failed.value.again) == (7.0, True)


def test_a_server_that_knows_no_response_format_is_asked_without(server: JudgeServer) -> None:
    server.says = lambda request: Said(status=400) if "response_format" in request else HARMFUL
    with closing(EndpointJudge(server.url, "m")) as judge:
        assert judge.ask(ASKED, 5).harmful
        assert judge.ask(ASKED, 5).harmful
    assert ["response_format" in request for request in server.requests] == [True, False, False]


def test_a_refused_message_does_not_take_the_form_from_others(server: JudgeServer) -> None:
    server.says = [Said(status=400), Said(status=400), HARMFUL]
    with closing(EndpointJudge(server.url, "m")) as judge:
        with pytest.raises(JudgeError):
            judge.ask(ASKED, 5)
        assert judge.ask(ASKED, 5).harmful
    assert "response_format" in server.requests[-1]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://judge/v1", "is no address"),
        ("judge.example", "is no address"),
        ("https://", "is no address"),
        ("https://judge:0/v1", "is no address"),
        ("https://judge:99999/v1", "is no URL"),
        ("https://user:pw@judge/v1", "judge_api_key"),
        ("https://judge/v1?key=1", "must end with its path"),
        ("http://judge.example/v1", "in the clear"),
        ("http://10.0.0.1/v1", "in the clear"),
        ("http://localhost.example/v1", "in the clear"),
        ("http://127.0.0.1.example/v1", "in the clear"),
    ],
)
def test_addresses_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as failed:
        check_url(url, allow_http=False)
    assert "pw" not in str(failed.value)


def test_addresses_that_are_taken() -> None:
    for url in ("https://judge.example/v1", "http://127.0.0.1:8000/v1", "http://[::1]:1/v1", "http://localhost/v1"):
        assert check_url(url, allow_http=False) == url
    assert check_url("http://judge.example/v1", allow_http=True)
