"""The middleware before vLLM, in a real server on loopback: what the application sees of what clients send.

The application here says what it got: body, headers, and whether the client went away.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from probes.vllm.claims import verified
from probes.vllm.middleware import GATEWAY_KEY_HEADER, Trusted, TrustedHeaders, TrustedHeadersError

KEY = b"k" * 64
GATEWAY = "g" * 32
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


class Echo:
    """Answers with what it got, in two chunks; `gone` is set where the client leaves before."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self.bodies.append(body)
        if scope["path"] == "/wait":
            assert (await receive())["type"] == "http.disconnect"
            self.gone.set()
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
        # A stream is passed on as it comes, and not collected.
        await asyncio.sleep(0.2)
        said = json.dumps({"body": body.decode("latin-1"), "headers": headers}).encode()
        await send({"type": "http.response.body", "body": said, "more_body": False})


@contextmanager
def served(trusted: Trusted) -> Iterator[tuple[int, Echo]]:
    echo = Echo()
    server = uvicorn.Server(
        uvicorn.Config(TrustedHeaders(echo, trusted, KEY), port=0, log_level="error", lifespan="off")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], echo
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(Trusted(gateway_key=GATEWAY.encode(), max_body_bytes=1_000_000)) as (at, _):
        yield at


def answer(port: int, body: Any, headers: dict[str, str] | None = None, path: str = PATHS[0], **kwargs: Any) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", path, body, {"content-type": "application/json", **(headers or {})}, **kwargs)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, json.loads(text.partition("\n")[2] if text.startswith("first\n") else text)


def said(port: int, request: dict[str, Any], headers: dict[str, str] | None = None, path: str = PATHS[0]) -> Any:
    """The request as the application reads it, and how it was described to it."""
    status, got = answer(port, json.dumps(request), headers, path)
    assert status == 200
    assert int(got["headers"]["content-length"]) == len(got["body"])
    return json.loads(got["body"])


def trusted_headers(**more: str) -> dict[str, str]:
    return {GATEWAY_KEY_HEADER: GATEWAY, **more}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_gateway_vouches(port: int, path: str, stream: bool) -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": "hé"}], "stream": stream}
    headers = trusted_headers(**{"x-awry-tenant": "acme", "X-Awry-User": "anna", "x-awry-conversation-id": "c-1"})
    got = said(port, request, headers, path)
    own = got.pop("kv_transfer_params")["awry"]
    assert got == request
    assert (own["tenant"], own["user"], own["conversation_id"]) == ("acme", "anna", "c-1")
    assert verified(own, KEY) == ("tenant", "user")
    assert verified({**own, "tenant": "other"}, KEY) == ()
    assert verified(own, b"x" * 64) == verified(own, None) == ()
    assert GATEWAY not in json.dumps(own)


def test_what_a_client_says_is_never_verified(port: int) -> None:
    # A claim that was right once: of another request of the same server.
    right = said(port, {}, trusted_headers(**{"x-awry-tenant": "acme"}))["kv_transfer_params"]["awry"]
    assert verified(right, KEY) == ("tenant",)
    for claim in (right["verified"], ["tenant"], True, {"fields": ["tenant"], "nonce": "", "mac": ""}):
        sent = {"kv_transfer_params": {"awry": {"tenant": "acme", "verified": claim}}}
        own = said(port, sent)["kv_transfer_params"]["awry"]
        assert own == {"tenant": "acme"}
        assert verified(own, KEY) == ()


@pytest.mark.parametrize("key", ["", "wrong", GATEWAY + "x", GATEWAY.upper(), "é" * 16])
def test_without_the_right_key_headers_say_and_do_not_vouch(port: int, key: str) -> None:
    own = said(port, {}, {GATEWAY_KEY_HEADER: key, "x-awry-tenant": "acme"})["kv_transfer_params"]["awry"]
    assert own == {"tenant": "acme"}
    kept = said(port, {"kv_transfer_params": {"awry": {"tenant": "own"}}}, {"x-awry-tenant": "acme"})
    assert kept["kv_transfer_params"]["awry"] == {"tenant": "own"}


def test_a_header_that_comes_twice_is_nobodys_word(port: int) -> None:
    def both(*pairs: tuple[str, str]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.putrequest("POST", PATHS[0])
        for name, value in (("content-length", "2"), ("content-type", "application/json"), *pairs):
            connection.putheader(name, value)
        connection.endheaders(b"{}")
        text = connection.getresponse().read().decode()
        connection.close()
        return json.loads(json.loads(text.partition("\n")[2])["body"])

    twice = both((GATEWAY_KEY_HEADER, GATEWAY), ("x-awry-tenant", "mallory"), ("x-awry-tenant", "acme"))
    assert "kv_transfer_params" not in twice
    keys = both((GATEWAY_KEY_HEADER, "guess"), (GATEWAY_KEY_HEADER, GATEWAY), ("x-awry-tenant", "acme"))
    assert verified(keys["kv_transfer_params"]["awry"], KEY) == ()


def test_a_client_can_neither_disable_nor_alter_scoring(port: int) -> None:
    sent = {
        "kv_transfer_params": {
            "do_remote_prefill": True,
            "prompt_token_ids": [1],
            "include_output_tokens": False,
            "awry": {
                "off": True,
                "probes": [],
                "conversation_id": "c",
                "attributes": {"a": 1},
                "tenant": 7,
                "user": "a\nb",
            },
        },
        "vllm_xargs": {"kv_transfer_params": "x", "mine": 1},
    }
    assert said(port, sent) == {
        "vllm_xargs": {"mine": 1},
        "kv_transfer_params": {"awry": {"conversation_id": "c", "attributes": {"a": 1}}},
    }
    empty: tuple[Any, ...] = (None, [], "x", {}, {"awry": None}, {"awry": []})
    for nothing in empty:
        assert said(port, {"kv_transfer_params": nothing}) == {}
    twice = (
        b'{"kv_transfer_params": {"awry": {"tenant": "a"}}, "kv_transfer_params": {"awry": {"verified": ["tenant"]}}}'
    )
    assert answer(port, twice)[1]["body"] == "{}"


def test_what_vllm_takes_from_sampling_parameters_is_left_out_too(port: int) -> None:
    sent = {"sampling_params": {"n": 1, "extra_args": {"kv_transfer_params": {"awry": {"tenant": "t"}}, "mine": 2}}}
    assert said(port, sent) == {"sampling_params": {"n": 1, "extra_args": {"mine": 2}}}


def test_attributes_that_are_large_or_no_object_are_left_out(port: int) -> None:
    for given in ({"a": "x" * 9000}, ["a"], "a", 7):
        sent = {"kv_transfer_params": {"awry": {"tenant": "t", "attributes": given}}}
        assert said(port, sent) == {"kv_transfer_params": {"awry": {"tenant": "t"}}}


def test_a_beam_search_is_refused(port: int) -> None:
    """vLLM would make a request of each beam and token, and no answer would be read."""
    status, body = answer(port, json.dumps({"use_beam_search": True, "n": 4}).encode())
    assert (status, body["error"]["code"]) == (400, 400)
    assert "use_beam_search" in body["error"]["message"]
    assert said(port, {"use_beam_search": False}) == {"use_beam_search": False}


def test_openai_fields_are_taken_along(port: int) -> None:
    sent = {"metadata": {"tenant": "t", "conversation_id": "c", "other": "o"}, "user": "u"}
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    got = said(port, sent, trace)
    assert got.pop("kv_transfer_params") == {
        "awry": {"tenant": "t", "conversation_id": "c", "user": "u", "trace_id": "0af7651916cd43dd8448eb211c80319c"}
    }
    assert got == sent


def test_a_body_in_chunks(port: int) -> None:
    text = json.dumps({"messages": ["x" * 200_000]}).encode()
    parts = (text[at : at + 10_000] for at in range(0, len(text), 10_000))
    status, got = answer(port, parts, trusted_headers(**{"x-awry-tenant": "acme"}), encode_chunked=True)
    assert status == 200
    assert "transfer-encoding" not in got["headers"]
    assert int(got["headers"]["content-length"]) == len(got["body"])
    assert verified(json.loads(got["body"])["kv_transfer_params"]["awry"], KEY) == ("tenant",)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"x"', b"\xff\xfe\x00", b"9" * 5000, b"[" * 100_000, b'{"a": ' * 100_000],
    ids=["empty", "cut", "list", "text", "bytes", "number", "deep-list", "deep-object"],
)
def test_what_is_no_json_object_goes_on_as_it_came(port: int, body: bytes) -> None:
    status, got = answer(port, body, trusted_headers(**{"x-awry-tenant": "acme"}))
    assert status == 200
    assert got["body"].encode("latin-1") == body


def test_numbers_and_letters_survive(port: int) -> None:
    text = '{"a": 0.1, "b": 1e400, "c": 12345678901234567890, "d": "\\ud800", "e": "\\u00e9", "seed": -0.0}'
    assert json.loads(answer(port, text)[1]["body"]) == json.loads(text)


def test_a_form_is_not_read(port: int) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    status, got = answer(port, b"{" + b"x" * 1_500_000, headers, "/v1/audio/transcriptions")
    assert (status, len(got["body"])) == (200, 1_500_001)


def test_a_body_over_the_limit_is_refused(port: int) -> None:
    status, got = answer(port, json.dumps({"x": "y" * 1_000_001}))
    assert status == 413
    assert "1000000 bytes" in got["error"]["message"]


def test_get_and_streams_pass_untouched(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/v1/models")
    assert connection.getresponse().read().startswith(b"first\n")
    connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", PATHS[0], '{"stream": true}', {"content-type": "application/json"})
    response = connection.getresponse()
    began = time.monotonic()
    assert response.read(6) == b"first\n"
    early = time.monotonic() - began
    response.read()
    assert time.monotonic() - began > early + 0.1, "the first chunk came before the last was made"
    connection.close()


@pytest.mark.parametrize("whole", [True, False], ids=["while it waits", "within its body"])
def test_a_client_that_leaves_is_seen_to_leave(whole: bool) -> None:
    with served(Trusted()) as (at, echo), socket.create_connection(("127.0.0.1", at)) as raw:
        raw.sendall(b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n" + (b"{}" if whole else b"{"))
        while whole and not echo.bodies:
            time.sleep(0.01)
        raw.close()
        assert echo.gone.wait(20)
        assert echo.bodies == ([b"{}"] if whole else [])


def test_settings_come_from_the_servers_file(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(GATEWAY + "\n")
    file = tmp_path / "trusted.json"
    file.write_text(json.dumps({"headers": {"tenant": "X-Org"}, "gateway_key_file": str(key)}))
    made = Trusted.load({"AWRY_TRUSTED_HEADERS": str(file)})
    assert (made.headers, made.gateway_key) == ({"tenant": "x-org"}, GATEWAY.encode())
    assert Trusted.load({"AWRY_TRUSTED_HEADERS": str(file), "AWRY_GATEWAY_KEY": "h" * 20}).gateway_key == b"h" * 20
    assert Trusted.load({}).gateway_key is None


@pytest.mark.parametrize(
    ("trusted", "reason"),
    [
        ([], "is not a JSON object"),
        ({"header": {}}, "header is unknown"),
        ({"headers": {"tenants": "x"}}, "headers is not"),
        ({"headers": {"tenant": 1}}, "headers is not"),
        ({"gateway_key_file": "/nowhere"}, "cannot be read"),
        ({"gateway_key_file": "short"}, "shorter than 16"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"max_body_bytes": True}, "max_body_bytes"),
    ],
)
def test_a_wrong_setting_stops_the_start(tmp_path: Path, trusted: Any, reason: str) -> None:
    (tmp_path / "short").write_text("abc")
    (tmp_path / "trusted.json").write_text(json.dumps(trusted))
    with pytest.raises(TrustedHeadersError, match=reason):
        Trusted.load({"AWRY_TRUSTED_HEADERS": "trusted.json"})


def test_a_file_that_is_no_json_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "trusted.json").write_text("{")
    for path in ("trusted.json", "missing.json"):
        with pytest.raises(TrustedHeadersError, match="AWRY_TRUSTED_HEADERS"):
            Trusted.load({"AWRY_TRUSTED_HEADERS": path})


def test_without_a_key_of_the_server_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from probes.vllm.claims import ClaimsKeyError

    with pytest.raises(ClaimsKeyError, match="AWRY_READINGS_KEY is not set"):
        TrustedHeaders(Echo())
    monkeypatch.setenv("AWRY_READINGS_KEY", "short")
    with pytest.raises(ClaimsKeyError, match="shorter"):
        TrustedHeaders(Echo())


def test_it_needs_the_standard_library_alone() -> None:
    import subprocess
    import sys

    from tests.support import ROOT

    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import probes.vllm.middleware;"
        "print([n for n in ('torch', 'numpy', 'pydantic', 'starlette', 'vllm', 'kafka') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
