"""What only looks like OTLP, or hides in it, leaves a row; work is linear in the size."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from monitor.stream.parse import ParseOptions, Parser, parse
from monitor.stream.wire import WireMessage
from tests.monitor.stream.formats.test_otlp import SAID, one
from tests.support.stream.renderings_otlp import RENDERINGS, as_json, traces


@pytest.mark.parametrize(
    "payload",
    [
        b'{"resourceSpans": [], "text": "how to do it"}',
        b'{"resourceSpans": [], "Messages": [{"role": "user", "content": "hi"}], "model": "m"}',
        b"\n " * 62 + b'{"prompt": "how to do it}',
        b"\n\x02\n\x00",
        b'{"resourceMetrics": [], "resourceLogs": [], "message": "how to do it"}',
        (b"\n " + b" " * 32) * 2 + b"\n" + b'{"id": "m", "prompt": "how to do it"}'.ljust(124),
        b"\n" + b'{"id": "m", "prompt": "how to do it \xff"}'.ljust(124),
    ],
)
def test_what_only_looks_like_tracing_leaves_a_row(payload: bytes) -> None:
    assert parse(payload)


def test_many_members_of_gzip_take_no_longer_than_their_bytes() -> None:
    started = time.thread_time()
    assert parse(gzip.compress(b"") * 200_000)
    assert time.thread_time() - started < 20


def test_spans_beside_a_request_do_not_hide_it() -> None:
    span = json.loads(RENDERINGS["span, JSON"](SAID))
    request = {"messages": [{"role": "user", "content": "how to do it"}], "model": "m"}
    assert [turn["content"] for turn in one(json.dumps(span | request).encode()).turns] == ["how to do it"]
    (named,) = Parser(ParseOptions("otlp"))(json.dumps(span | {"at": 1}).encode())
    assert isinstance(named, WireMessage)
    assert named.notes == ("otlp: fields that OTLP has not were not read",)


def test_other_attributes_beside_numbered_ones_do_not_hide_them() -> None:
    for attributes in (
        {"gen_ai.prompt.name": "greeting", "gen_ai.prompt.0.content": "Hi"},
        {"llm.input_messages.0.message.content": "Hi", "llm.input_messages.count": 1},
    ):
        assert one(as_json(traces(attributes))).turns == [{"role": "user", "content": "Hi"}]


def test_gateways_own_names_of_tenant_and_user() -> None:
    spoken = {"gen_ai.prompt.0.content": "Hi"}
    names = {"metadata.user_api_key_end_user_id": "ann", "metadata.user_api_key_team_alias": "shop"}
    message = one(as_json(traces(spoken | names | {"service.namespace": "space"})))
    assert (message.user, message.tenant) == ("ann", "shop")
    assert one(as_json(traces(spoken | {"llm.user": "bob"}))).user == "bob"


def test_one_resource_of_many_spans_is_looked_at_once() -> None:
    spans = [{"attributes": [{"key": "gen_ai.prompt", "value": {"stringValue": f"Hi {n}"}}]} for n in range(2000)]
    about = [{"key": f"a{n}", "value": {"stringValue": "x"}} for n in range(20_000)]
    request = {"resourceSpans": [{"resource": {"attributes": about}, "scopeSpans": [{"spans": spans}]}]}
    started = time.process_time()
    assert len(parse(json.dumps(request).encode())) >= 1000
    assert time.process_time() - started < 4
