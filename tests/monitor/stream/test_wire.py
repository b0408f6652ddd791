"""The wire format: whatever comes in, one answer; reasons name the field and hold none of the text."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.stream.wire import MAX_DEPTH, MAX_ID, Invalid, WireMessage, parse
from storage.coordinates import clean

CANARY = "CANARYTEXT"
GOOD = {"id": "m1", "prompt": f"{CANARY} hello"}


def good(**more: Any) -> WireMessage:
    message = parse(json.dumps({**GOOD, **more}).encode())
    assert isinstance(message, WireMessage), message
    return message


def invalid(payload: Any) -> Invalid:
    message = parse(payload if isinstance(payload, bytes) else json.dumps(payload).encode())
    assert isinstance(message, Invalid), message
    return message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from([*WireMessage.model_fields, "turns", "model_extra", "__class__", "model_config", "label"])
nearly = st.dictionaries(fields, json_values | st.just([{"role": "user", "content": "x"}]), max_size=8)


def check(payload: bytes) -> None:
    """The contract of `parse` on anything."""
    found = parse(payload)
    if isinstance(found, Invalid):
        assert found.reason
        return
    assert found.id.strip()
    assert any(t["content"].strip() for t in found.turns)
    assert len(found.text_sha256) == 64
    # What is kept can be written down as JSON and as UTF-8.
    json.dumps(clean(found.kept_attributes), allow_nan=False).encode()
    json.dumps([found.turns, found.response], ensure_ascii=False).encode()


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(b"\x00\x00\x00{")
@example(b"[" * 100_000)
def test_parse_never_raises_on_bytes(payload: bytes) -> None:
    check(payload)


@given(json_values | nearly)
@example({"id": "a", "prompt": "b", "turns": 1, "model_extra": 2, "__class__": 3, "__dict__": 4, "model_fields": 5})
@example({"id": "a", "prompt": "b", "attributes": {"\ud800": "\udc00"}})
def test_parse_never_raises_on_json(value: Any) -> None:
    check(json.dumps(value).encode())


@given(nearly, st.text(min_size=1), st.text(min_size=1))
def test_parse_never_raises_on_nearly_messages(value: dict[str, Any], message_id: str, prompt: str) -> None:
    check(json.dumps({**value, "id": message_id, "prompt": prompt}, ensure_ascii=False).encode("utf-8", "replace"))
    check(json.dumps({"id": message_id, "prompt": prompt, **value}).encode())


TURNS = [{"role": "user", "content": CANARY}]


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (b'{"id": "m1", "prompt": "CANARYTEXT', "payload: not JSON"),
        (b"CANARYTEXT", "payload: not JSON"),
        (b"", "payload: empty"),
        (b'{"id": "m1", "prompt": "CANARYTEXT \xff"}', "payload: not UTF-8"),
        (b'{"id": "m1", "prompt": "CANARYTEXT \xed\xa0\x80"}', "payload: not UTF-8"),
        (json.dumps(GOOD).encode("utf-16"), "payload: not UTF-8"),
        (b'{"id":"m1","prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "payload: nested too deeply"),
        ([GOOD], "payload: a JSON array"),
        (CANARY, "payload: a JSON string"),
        (7, "payload: a JSON number"),
        (True, "payload: a JSON boolean"),
        (None, "payload: a JSON null"),
        ({"prompt": CANARY}, "id: Field required"),
        ({**GOOD, "id": ""}, "id: is empty"),
        ({**GOOD, "id": " \t"}, "id: is empty"),
        ({**GOOD, "id": 7}, "id: "),
        ({**GOOD, "id": None}, "id: "),
        ({**GOOD, "id": CANARY * 100}, "id: "),
        ({"id": "m1"}, "either prompt or messages"),
        ({"id": "m1", "prompt": ""}, "prompt: is empty"),
        ({"id": "m1", "prompt": " \n "}, "prompt: is empty"),
        ({"id": "m1", "prompt": [CANARY]}, "prompt: "),
        ({"id": "m1", "prompt": {"text": CANARY}}, "prompt: "),
        ({**GOOD, "messages": TURNS}, "either prompt or messages"),
        ({"id": "m1", "messages": []}, "messages: "),
        ({"id": "m1", "messages": CANARY}, "messages: "),
        ({"id": "m1", "messages": {"role": CANARY}}, "messages: "),
        ({"id": "m1", "messages": [{"role": "user", "content": " "}]}, "messages: every content is empty"),
        ({"id": "m1", "messages": [*TURNS, CANARY]}, "messages[1]: "),
        ({"id": "m1", "messages": [*TURNS, {"content": CANARY}]}, "messages[1].role: "),
        ({"id": "m1", "messages": [{"role": "", "content": CANARY}]}, "messages[0].role: "),
        ({"id": "m1", "messages": [{"role": CANARY * 9, "content": CANARY}]}, "messages[0].role: "),
        ({"id": "m1", "messages": [{"role": "user", "content": [CANARY]}]}, "messages[0].content: "),
        ({"id": "m1", "messages": [{"role": "user", "content": f"{CANARY}\ud800"}]}, "messages[0].content: "),
        ({**GOOD, "prompt": f"{CANARY} \ud800"}, "prompt: holds a lone surrogate"),
        ({**GOOD, "id": f"{CANARY}\udfff"}, "id: holds a lone surrogate"),
        ({**GOOD, "tenant": "\udfff"}, "tenant: holds a lone surrogate"),
        ({**GOOD, "response": [CANARY]}, "response: "),
        ({**GOOD, "response": f"{CANARY}\ud800"}, "response: holds a lone surrogate"),
        ({**GOOD, "tenant": 7}, "tenant: "),
        ({**GOOD, "user": CANARY * 100}, "user: "),
        ({**GOOD, "model": [CANARY]}, "model: "),
        ({**GOOD, "conversation_id": False}, "conversation_id: "),
        ({**GOOD, "timestamp": CANARY}, "timestamp: "),
        ({**GOOD, "timestamp": {"at": CANARY}}, "timestamp: "),
        ({**GOOD, "timestamp": True}, "timestamp: "),
        ({**GOOD, "timestamp": 1e300}, "timestamp: "),
        ({**GOOD, "timestamp": float("nan")}, "timestamp: "),
        ({**GOOD, "attributes": [CANARY]}, "attributes: "),
        ({**GOOD, "attributes": CANARY}, "attributes: "),
        ({**GOOD, "attributes": {CANARY: float("nan")}}, "attributes: holds a number that is not finite"),
        ({**GOOD, CANARY: [{CANARY: float("-inf")}]}, "attributes: holds a number that is not finite"),
        (b'{"id":"m1","prompt":"CANARYTEXT","score":1e999}', "attributes: holds a number that is not finite"),
    ],
)
def test_what_is_wrong_is_named_and_not_quoted(payload: Any, field: str) -> None:
    found = invalid(payload)
    assert found.reason.removeprefix("give ").startswith(field)
    assert CANARY not in found.reason
    assert "\n" not in found.reason


def deep(levels: int) -> Any:
    value: Any = 1
    for n in range(levels):
        value = [value] if n % 2 else {CANARY: value}
    return value


@pytest.mark.parametrize("name", ["attributes", CANARY, "messages", "prompt"])
def test_deep_nesting_is_named(name: str) -> None:
    found = invalid({"id": "m1", "prompt": "x", name: deep(MAX_DEPTH + 2)})
    assert found.reason.startswith("attributes: nested" if name == CANARY else f"{name}: nested")
    assert CANARY not in found.reason


def test_what_is_not_too_deep_is_kept() -> None:
    assert good(attributes={"a": deep(MAX_DEPTH - 1)}).kept_attributes["a"] == deep(MAX_DEPTH - 1)


@pytest.mark.parametrize(
    ("payload", "message_id"),
    [
        ({"id": "m9", "prompt": ""}, "m9"),
        ({"id": "m9", "prompt": "x", "a": float("inf")}, "m9"),
        ({"id": "x" * 600, "prompt": "x"}, "x" * MAX_ID),
        ({"id": 9, "prompt": "x"}, None),
        ([], None),
    ],
)
def test_an_invalid_message_keeps_an_id_that_can_be_read(payload: Any, message_id: str | None) -> None:
    assert invalid(payload).message_id == message_id


def test_a_prompt_is_one_turn_of_the_user() -> None:
    assert good().turns == [{"role": "user", "content": GOOD["prompt"]}]


def test_a_chat_is_kept_in_order() -> None:
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    message = parse(json.dumps({"id": "m", "messages": [{**turns[0], "name": "extra"}, *turns[1:]]}).encode())
    assert isinstance(message, WireMessage)
    assert message.turns == turns


def test_unknown_fields_are_kept_beside_attributes() -> None:
    message = good(label=True, turns=["mine"], model_extra=2, attributes={"a": {"b": [1]}})
    assert message.kept_attributes == {"label": True, "turns": ["mine"], "model_extra": 2, "a": {"b": [1]}}
    assert message.turns[0]["role"] == "user"


def test_nul_is_fine() -> None:
    message = good(prompt="a\x00b", tenant="\x00", attributes={"\x00": "\x00"})
    assert message.turns[0]["content"] == "a\x00b"


def test_a_surrogate_pair_is_a_character() -> None:
    message = parse(b'{"id": "m", "prompt": "\\ud83d\\ude00"}')
    assert isinstance(message, WireMessage)
    assert message.prompt == "\U0001f600"


def test_a_byte_order_mark_is_passed_over() -> None:
    assert isinstance(parse(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()), WireMessage)


def test_a_long_prompt() -> None:
    text = "é" * 500_000
    message = good(prompt=text)
    assert message.prompt == text
    assert len(json.dumps(GOOD | {"prompt": text}, ensure_ascii=False).encode()) > 1_000_000


def test_the_longest_names() -> None:
    assert good(id="x" * MAX_ID, tenant="é" * MAX_ID).tenant == "é" * MAX_ID


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "at"),
    [
        ("2026-03-01T12:00:00Z", NOON),
        ("2026-03-01T12:00:00+00:00", NOON),
        ("2026-03-01T14:00:00+02:00", NOON),
        ("2026-03-01T07:00:00-05:00", NOON),
        ("2026-03-01T12:00:00", NOON),
        ("2026-03-01 12:00:00", NOON),
        ("2026-03-01T12:00:00.250Z", NOON + timedelta(milliseconds=250)),
        (int(NOON.timestamp()), NOON),
        (NOON.timestamp() + 0.5, NOON + timedelta(milliseconds=500)),
        (None, None),
    ],
)
def test_timestamps(written: Any, at: datetime | None) -> None:
    assert good(timestamp=written).timestamp == at


def test_a_timestamp_keeps_its_moment_not_its_clock() -> None:
    found = good(timestamp="2026-03-01T01:00:00+02:00").timestamp
    assert found is not None
    assert found.astimezone(UTC).day == 28
    assert found.astimezone(timezone(timedelta(hours=2))).day == 1


def test_the_texts_hash_is_the_same_whichever_way_it_was_sent() -> None:
    chat = good(prompt=None, messages=[{"role": "user", "content": GOOD["prompt"]}])
    assert chat.text_sha256 == good().text_sha256
    assert good(response="a").text_sha256 != good().text_sha256
    assert good(id="other", tenant="t").text_sha256 == good().text_sha256
    expected = json.dumps({"messages": [{"content": GOOD["prompt"], "role": "user"}]}, sort_keys=True)
    assert good().text_sha256 == hashlib.sha256(expected.encode()).hexdigest()


# Headers of a record.

EVENT = (("ce_specversion", b"1.0"), ("ce_id", b"event-1"), ("ce_time", b"2026-03-01T12:00:00Z"))


def of(value: dict[str, Any], *headers: tuple[str, bytes | None]) -> WireMessage:
    message = parse(json.dumps(value).encode(), headers)
    assert isinstance(message, WireMessage), message
    return message


def test_a_cloud_event_fills_in_id_and_time() -> None:
    message = of({"prompt": "x"}, *EVENT)
    assert (message.id, message.timestamp) == ("event-1", NOON)
    assert message.kept_attributes == {name: value.decode() for name, value in EVENT if value}


def test_what_the_payload_says_itself_wins() -> None:
    headers = (*EVENT, ("traceparent", b"header"))
    message = of({"id": "m", "prompt": "x", "timestamp": 0, "attributes": {"traceparent": "own"}}, *headers)
    assert (message.id, message.timestamp) == ("m", datetime(1970, 1, 1, tzinfo=UTC))
    assert message.kept_attributes["traceparent"] == "own"
    assert message.kept_attributes["ce_id"] == "event-1"


@pytest.mark.parametrize("version", [(), (("ce_specversion", b""),), (("ce_specversion", None),)])
def test_headers_that_are_no_cloud_event_fill_in_nothing(version: tuple[tuple[str, bytes | None], ...]) -> None:
    found = parse(b'{"prompt": "x"}', (*EVENT[1:], *version))
    assert found == Invalid("id: Field required")


def test_only_traces_and_events_are_kept() -> None:
    headers = (
        ("traceparent", b"00-a-b-01"),
        ("tracestate", b"v=1"),
        ("authorization", CANARY.encode()),
        ("Ce_id", b"x"),
    )
    assert of(GOOD, *headers).kept_attributes == {"traceparent": "00-a-b-01", "tracestate": "v=1"}


def test_headers_that_are_no_text_are_kept_as_far_as_they_are() -> None:
    message = of(GOOD, ("traceparent", b"a\xff\xed\xa0\x80"), ("tracestate", None), ("ce_x", b"y" * 9000))
    assert message.kept_attributes == {"traceparent": "a" + "\ufffd" * 4, "ce_x": "y" * MAX_ID}


def test_an_event_whose_time_is_none_names_the_field() -> None:
    found = parse(b'{"prompt": "x"}', (*EVENT[:2], ("ce_time", CANARY.encode())))
    assert isinstance(found, Invalid)
    assert found.reason.startswith("timestamp: ")
    assert (found.message_id, CANARY in found.reason) == ("event-1", False)


def test_attributes_that_are_no_object_stay_invalid_with_headers() -> None:
    found = parse(json.dumps({**GOOD, "attributes": None}).encode(), EVENT)
    assert isinstance(found, Invalid)
    assert found.reason.startswith("attributes: ")


def test_headers_cannot_save_a_payload_that_is_none() -> None:
    assert parse(b"", EVENT) == Invalid("payload: empty")
    assert parse(b"[]", EVENT) == Invalid("payload: a JSON array, not an object")


@given(
    st.lists(st.tuples(st.text() | st.sampled_from(["ce_id", "ce_time", "ce_specversion"]), st.none() | st.binary()))
)
def test_parse_never_raises_on_headers(headers: list[tuple[str, bytes | None]]) -> None:
    found = parse(b'{"prompt": "x"}', headers)
    if isinstance(found, WireMessage):
        json.dumps(clean(found.kept_attributes), allow_nan=False).encode()
