"""Whatever comes in, an answer: wire messages, or a reason that names the field and holds none of the text."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.stream.formats.fields import MAX_DEPTH, MAX_NAME
from monitor.stream.parse import MAX_MESSAGES, ParseOptions, Parser, parse
from monitor.stream.wire import Invalid, WireMessage
from storage.coordinates import clean

CANARY = "CANARYTEXT"
GOOD = {"id": "m1", "prompt": f"{CANARY} hello"}
Headers = tuple[tuple[str, bytes | None], ...]


def one(payload: Any, headers: Headers = ()) -> WireMessage | Invalid:
    (message,) = parse(payload if isinstance(payload, bytes) else json.dumps(payload).encode(), headers)
    return message


def good(**more: Any) -> WireMessage:
    message = one({**GOOD, **more})
    assert isinstance(message, WireMessage), message
    return message


def invalid(payload: Any, headers: Headers = ()) -> Invalid:
    message = one(payload, headers)
    assert isinstance(message, Invalid), message
    return message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from([f.name for f in fields(WireMessage)] + ["prompt", "messages", "content", "__class__", "label"])
nearly = st.dictionaries(names, json_values | st.just([{"role": "user", "content": "x"}]), max_size=8)


def check(payload: bytes) -> None:
    """The contract of `parse` on anything."""
    found = parse(payload)
    assert found
    for each in found:
        # What is kept can be written down as JSON and as UTF-8.
        json.dumps([each.notes, each.unread, each.format, each.tenant, each.user], ensure_ascii=False).encode()
        if isinstance(each, Invalid):
            assert each.reason
            assert "reader failed" not in each.reason
            continue
        assert each.id is None or each.id.strip()
        said = any(turn["content"].strip() or turn.get("tool_calls") for turn in each.turns)
        assert said or each.tools or (each.turns and (each.response or "").strip())
        assert len(each.text_sha256) == 64
        json.dumps(clean(each.attributes), allow_nan=False).encode()
        json.dumps([each.turns, each.response, each.tools], ensure_ascii=False, allow_nan=False).encode()


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
    ("payload", "reason"),
    [
        (b'{"id": "m1", "prompt": "CANARYTEXT', "payload: not JSON"),
        (b"CANARYTEXT", "payload: not JSON"),
        (b"", "payload: empty"),
        (b'{"id": "m1", "prompt": "CANARYTEXT \xff"}', "payload: not UTF-8"),
        (b'{"id": "m1", "prompt": "CANARYTEXT \xed\xa0\x80"}', "payload: not UTF-8"),
        (json.dumps(GOOD).encode("utf-16"), "payload: not UTF-8"),
        (b'{"id":"m1","prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "payload: nested too deeply"),
        ([], "payload: an empty array"),
        (CANARY, "payload: a JSON string"),
        (7, "payload: a JSON number"),
        (True, "payload: a JSON boolean"),
        (None, "payload: a JSON null"),
        ({"id": "m1"}, "payload: no known format"),
        ({"id": "m1", CANARY: CANARY}, "payload: no known format"),
    ],
)
def test_what_cannot_be_read_is_named_and_not_quoted(payload: Any, reason: str) -> None:
    found = invalid(payload)
    assert found.reason.startswith(reason)
    assert found.status == "invalid"
    assert CANARY not in str(found)
    assert "\n" not in found.reason


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"id": "m1", "prompt": ""}, "nothing readable: every content is empty"),
        ({"id": "m1", "prompt": " \n "}, "nothing readable: every content is empty"),
        ({"id": "m1", "messages": []}, "nothing readable: every content is empty"),
        ({"id": "m1", "messages": [{"role": "user", "content": None}]}, "nothing readable: every content is empty"),
        (
            {"id": "m1", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "nothing readable: only image",
        ),
    ],
)
def test_a_message_with_nothing_to_read_is_skipped_with_its_names(payload: dict[str, Any], reason: str) -> None:
    found = invalid(payload | {"tenant": "shop", "user": 7, "model": "chat", "conversation_id": "c"})
    assert (found.reason, found.status) == (reason, "skipped")
    assert (found.message_id, found.tenant, found.user, found.model, found.conversation_id) == (
        "m1",
        "shop",
        "7",
        "chat",
        "c",
    )


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"id": 7}, "id: a number, taken as a string"),
        ({"id": True}, "id: dropped, not a string"),
        ({"id": CANARY * 100}, "id: dropped, over 512 characters or 1000 bytes"),
        ({"tenant": 7}, "tenant: a number, taken as a string"),
        ({"tenant": [CANARY]}, "tenant: dropped, not a string"),
        ({"tenant": "\U0001f600" * 300}, "tenant: dropped, over 512 characters or 1000 bytes"),
        ({"user": CANARY * 100}, "user: dropped, over 512 characters or 1000 bytes"),
        ({"model": {CANARY: 1}}, "model: dropped, not a string"),
        ({"conversation_id": False}, "conversation_id: dropped, not a string"),
        ({"conversation_id": 10**400}, "conversation_id: dropped, a number of too many digits"),
        ({"trace_id": 1e400}, "trace_id: dropped, not a finite number"),
        ({"timestamp": CANARY}, "timestamp: dropped, not a time"),
        ({"timestamp": {"at": CANARY}}, "timestamp: dropped, not a time"),
        ({"timestamp": True}, "timestamp: dropped, not a time"),
        ({"timestamp": 1e300}, "timestamp: dropped, not a time"),
        ({"timestamp": float("nan")}, "timestamp: dropped, not a time"),
        ({"timestamp": "9999-12-31T23:59:59-12:00"}, "timestamp: dropped, not a time"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "timestamp: dropped, not a time"),
        ({"timestamp": "9999-12-31T23:59:59"}, "timestamp: dropped, out of range"),
        ({"attributes": [CANARY]}, "attributes: dropped, not an object"),
        ({"attributes": CANARY}, "attributes: dropped, not an object"),
        ({"attributes": {CANARY: float("nan")}}, "attributes: some dropped, nested too deeply or not finite"),
        ({CANARY: [{CANARY: float("-inf")}]}, "attributes: some dropped, nested too deeply or not finite"),
        ({CANARY: 10**4000}, "attributes: some dropped, nested too deeply or not finite"),
        ({"messages": TURNS}, "prompt: not read, messages was given too"),
        ({"prompt": f"{CANARY} \ud800"}, "payload: lone surrogates became U+FFFD"),
        ({"response": f"{CANARY}\ud800"}, "payload: lone surrogates became U+FFFD"),
    ],
)
def test_a_bad_side_field_is_dropped_with_a_note_and_the_message_read(more: dict[str, Any], note: str) -> None:
    found = good(**more)
    assert list(found.notes) == [note]
    assert CANARY in found.turns[0]["content"]
    assert CANARY not in json.dumps([found.notes, found.tenant, found.user, found.model, found.conversation_id])


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    found = good(prompt="a \ud800 b", messages=None, response="\udfff")
    assert (found.turns[0]["content"], found.response) == ("a \ufffd b", "\ufffd")


def test_a_field_that_is_there_twice_is_noted() -> None:
    found = one(b'{"id": "m", "prompt": "first", "prompt": "second"}')
    assert isinstance(found, WireMessage)
    assert found.turns[0]["content"] == "second"
    assert found.notes == ("payload: an object names a field twice; the last one was read",)


def deep(levels: int) -> Any:
    value: Any = 1
    for n in range(levels):
        value = [value] if n % 2 else {CANARY: value}
    return value


def test_deep_attributes_are_dropped_and_others_kept() -> None:
    found = good(attributes={"deep": deep(MAX_DEPTH + 2), "kept": deep(MAX_DEPTH - 1)})
    assert found.attributes == {"kept": deep(MAX_DEPTH - 1)}


def test_an_array_is_as_many_messages_as_elements() -> None:
    found = parse(json.dumps([GOOD, 7, {"id": "m2"}, {**GOOD, "id": "m3"}]).encode())
    assert [each.id if isinstance(each, WireMessage) else each.reason.split(":")[0] for each in found] == [
        "m1",
        "payload",
        "payload",
        "m3",
    ]


def test_an_array_of_too_many_messages_says_so() -> None:
    found = parse(b"[" + b",".join([b"{}"] * (MAX_MESSAGES + 5)) + b"]")
    assert len(found) == MAX_MESSAGES + 1
    assert isinstance(found[-1], Invalid)
    assert found[-1].reason == f"payload: an array of over {MAX_MESSAGES} messages, the rest was not read"


def test_an_invalid_message_keeps_the_names_that_can_be_read() -> None:
    found = invalid({"id": "m9", "tenant": "evil", "user": 9, "model": [1], "conversation_id": "c"})
    assert (found.message_id, found.tenant, found.user, found.model, found.conversation_id) == (
        "m9",
        "evil",
        "9",
        None,
        "c",
    )


@pytest.mark.parametrize("name", ["auto", "awry"])
def test_a_named_format_is_taken(name: str) -> None:
    (found,) = Parser(ParseOptions(name))(json.dumps(GOOD).encode())
    assert isinstance(found, WireMessage)
    assert found.format == "awry"


def test_a_prompt_is_one_turn_of_the_user() -> None:
    assert good().turns == [{"role": "user", "content": GOOD["prompt"]}]


def test_a_chat_is_kept_in_order() -> None:
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    message = one({"id": "m", "messages": turns})
    assert isinstance(message, WireMessage)
    assert message.turns == turns


def test_unknown_fields_are_kept_beside_attributes() -> None:
    message = good(label=True, turns=["mine"], model_extra=2, attributes={"a": {"b": [1]}})
    assert message.attributes == {"label": True, "turns": ["mine"], "model_extra": 2, "a": {"b": [1]}}
    assert message.turns[0]["role"] == "user"


def test_nul_is_fine() -> None:
    message = good(prompt="a\x00b", tenant="\x00", attributes={"\x00": "\x00"})
    assert message.turns[0]["content"] == "a\x00b"


def test_a_surrogate_pair_is_a_character() -> None:
    message = one(b'{"id": "m", "prompt": "\\ud83d\\ude00"}')
    assert isinstance(message, WireMessage)
    assert (message.turns[0]["content"], message.notes) == ("\U0001f600", ())


def test_a_byte_order_mark_is_passed_over() -> None:
    assert isinstance(one(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()), WireMessage)


def test_a_long_prompt() -> None:
    text = "é" * 500_000
    message = good(prompt=text)
    assert message.turns[0]["content"] == text
    assert len(json.dumps(GOOD | {"prompt": text}, ensure_ascii=False).encode()) > 1_000_000


def test_the_longest_names() -> None:
    found = good(id="x" * MAX_NAME, tenant="é" * 500)
    assert (found.id, found.tenant, found.notes) == ("x" * MAX_NAME, "é" * 500, ())


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
    message = one(value, headers)
    assert isinstance(message, WireMessage), message
    return message


def test_a_cloud_event_fills_in_id_and_time() -> None:
    message = of({"prompt": "x"}, *EVENT)
    assert (message.id, message.timestamp) == ("event-1", NOON)
    assert message.attributes == {name: value.decode() for name, value in EVENT if value}


def test_what_the_payload_says_itself_wins() -> None:
    headers = (*EVENT, ("traceparent", b"header"))
    message = of({"id": "m", "prompt": "x", "timestamp": 0, "attributes": {"traceparent": "own"}}, *headers)
    assert (message.id, message.timestamp) == ("m", datetime(1970, 1, 1, tzinfo=UTC))
    assert message.attributes["traceparent"] == "own"
    assert message.attributes["ce_id"] == "event-1"


@pytest.mark.parametrize("version", [(), (("ce_specversion", b""),), (("ce_specversion", None),)])
def test_headers_that_are_no_cloud_event_fill_in_nothing(version: tuple[tuple[str, bytes | None], ...]) -> None:
    found = one({"prompt": "x"}, (*EVENT[1:], *version))
    assert isinstance(found, WireMessage)
    assert (found.id, found.timestamp) == (None, None)


def test_only_traces_and_events_are_kept() -> None:
    headers = (
        ("traceparent", b"00-a-b-01"),
        ("tracestate", b"v=1"),
        ("authorization", CANARY.encode()),
        ("Ce_id", b"x"),
    )
    assert of(GOOD, *headers).attributes == {"traceparent": "00-a-b-01", "tracestate": "v=1"}


def test_headers_that_are_no_text_are_kept_as_far_as_they_are() -> None:
    message = of(GOOD, ("traceparent", b"a\xff\xed\xa0\x80"), ("tracestate", None), ("ce_x", b"y" * 9000))
    assert message.attributes == {"traceparent": "a" + "\ufffd" * 4, "ce_x": "y" * MAX_NAME}


def test_an_event_whose_time_is_none_is_noted() -> None:
    found = one({"prompt": "x"}, (*EVENT[:2], ("ce_time", CANARY.encode())))
    assert isinstance(found, WireMessage)
    assert (found.id, found.timestamp, found.notes) == ("event-1", None, ("timestamp: dropped, not a time",))


def test_a_trace_is_taken_from_its_header() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    assert of(GOOD, ("traceparent", f"00-{trace}-b7ad6b7169203331-01".encode())).trace_id == trace
    assert (
        of({**GOOD, "trace_id": "own"}, ("traceparent", f"00-{trace}-b7ad6b7169203331-01".encode())).trace_id == "own"
    )


def test_headers_cannot_save_a_payload_that_is_none() -> None:
    assert parse(b"", EVENT) == [Invalid("payload: empty")]
    assert parse(b"[]", EVENT) == [Invalid("payload: an empty array")]


@given(
    st.lists(st.tuples(st.text() | st.sampled_from(["ce_id", "ce_time", "ce_specversion"]), st.none() | st.binary()))
)
def test_parse_never_raises_on_headers(headers: list[tuple[str, bytes | None]]) -> None:
    for found in parse(b'{"prompt": "x"}', headers):
        if isinstance(found, WireMessage):
            json.dumps(clean(found.attributes), allow_nan=False).encode()


def test_an_answer_without_a_readable_request_and_tools_alone_are_read() -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    answered = one({"id": "m", "messages": image, "response": "A cake."})
    assert isinstance(answered, WireMessage)
    assert (answered.response, answered.unread) == ("A cake.", {"image": 1})
    tool = {"type": "function", "function": {"name": "f", "description": CANARY, "parameters": {}}}
    declared = one({"id": "m", "messages": [{"role": "user", "content": ""}], "tools": [tool]})
    assert isinstance(declared, WireMessage)
    assert CANARY in json.dumps(declared.tools)


def test_names_in_another_case_are_read_and_two_cases_noted() -> None:
    found = one({"Messages": [{"Role": "user", "Content": CANARY}]})
    assert isinstance(found, WireMessage)
    assert found.turns == [{"role": "user", "content": CANARY}]
    twice = one({"messages": [{"role": "user", "content": "hi"}], "Messages": [{"role": "user", "content": CANARY}]})
    assert twice.notes == ("payload: an object names a field twice; the last one was read",)


@pytest.mark.parametrize("size", [True, -1, 10**900, "7"])
def test_a_note_of_size_that_is_none(size: Any) -> None:
    assert invalid({"awry_oversize": size}).reason.startswith("payload: no known format")
    assert invalid({"awry_oversize": 5_000_000}).reason == "payload: 5000000 bytes, over what the topic takes"
