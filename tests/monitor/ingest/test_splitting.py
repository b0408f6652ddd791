"""One body into records: the bytes as they came, nothing dropped, whatever they are."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.ingest.refused import RefusedError
from monitor.ingest.splitting import MAX_RECORDS, split

JSON, LINES = "application/json", "application/x-ndjson"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text().filter(lambda name: name != "role"), values, max_size=4)


@given(st.lists(objects, min_size=1, max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_the_elements_of_an_array_are_cut_as_they_came(found: list[Any], indent: int | None, ascii_only: bool) -> None:
    body = json.dumps(found, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert [json.loads(part.decode("utf-8", "surrogatepass")) for part in split(body, JSON)] == found


@given(st.lists(values, min_size=1, max_size=6))
def test_elements_that_are_no_objects_are_passed_on(found: list[Any]) -> None:
    parts = split(json.dumps(found).encode(), JSON)
    kept = [json.loads(part) for part in parts]
    assert kept in (found, [found])


@given(st.lists(objects, min_size=1, max_size=6), st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
def test_lines_are_records(found: list[Any], end: bytes) -> None:
    body = end.join(json.dumps(each).encode() for each in found) + end
    assert [json.loads(part) for part in split(body, LINES)] == found
    if len(found) > 1:  # under another content type too
        assert [json.loads(part) for part in split(body, JSON)] == found


@given(st.binary(min_size=1, max_size=60), st.sampled_from([JSON, LINES, ""]))
def test_no_byte_is_lost_whatever_comes(body: bytes, content_type: str) -> None:
    seps = b" \t\r\n,[]\xef\xbb\xbf"
    kept = b"".join(split(body, content_type))
    assert kept.translate(None, seps) == body.translate(None, seps)


@given(st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b",", b'"', b"\\", b"a", b"\n", b":", b" "]), max_size=24))
def test_no_byte_is_lost_of_what_looks_like_json(parts: list[bytes]) -> None:
    body = b"".join(parts)
    kept = b"".join(split(body, JSON))
    seps = b" \t\r\n,[]"
    assert kept.translate(None, seps) == body.translate(None, seps)


@pytest.mark.parametrize(
    "body",
    [
        b'[{"a":1}, {"b":',
        b'[{"a":1}, {"b":2}',
        b'[{"a":1},, {"b":2}]',
        b'[{"a":1}, {"b":2}] x',
        b'[{"a":"not closed}]',
        b"[",
        b"[]",
        b"nonsense",
        b'{"a":1',
        b'{"a":\n1',
        b'{"a":\n1\n}',
        b'{"a":1} {"b":2}',
        b"\xff\xfe[\x00",
    ],
)
def test_what_is_not_well_formed_stays_whole(body: bytes) -> None:
    assert split(body, JSON) == [body]


def test_brackets_and_commas_in_strings_are_text() -> None:
    first, second = b'{"a": "],[{\\"\\\\"}', b'{"b": "\\\\\\"}]"}'
    assert split(b"[" + first + b" ,\n" + second + b"]", JSON) == [first, second]


@pytest.mark.parametrize(
    "body",
    [
        b'[{"role": "user", "content": "hi"}]',
        b'[{"content": [{"type": "text", "text": "hi"}], "role" : "user"}, {"role": "assistant", "content": "ho"}]',
    ],
)
def test_an_array_that_is_one_conversation_stays_whole(body: bytes) -> None:
    assert split(body, JSON) == [body]


@pytest.mark.parametrize("body", [b'[{"a": {"role": 1}}, {"b": 2}]', b'[{"a": "x \\"role\\": y"}, {"b": 2}]'])
def test_a_role_elsewhere_is_no_conversation(body: bytes) -> None:
    assert len(split(body, JSON)) == 2


def test_blank_is_nothing() -> None:
    for body in (b"", b" \n", b"\xef\xbb\xbf\r\n"):
        assert split(body, JSON) == split(body, LINES) == []


def test_a_mark_before_the_text_is_left_out() -> None:
    assert split(b'\xef\xbb\xbf[{"a":1}]', JSON) == [b'{"a":1}']


def test_so_many_and_no_more() -> None:
    assert len(split(b"[" + b",".join([b"{}"] * MAX_RECORDS) + b"]", JSON)) == MAX_RECORDS
    for body, kind in (
        (b"[" + b",".join([b"{}"] * (MAX_RECORDS + 1)) + b"]", JSON),
        (b"{}\n" * (MAX_RECORDS + 1), LINES),
        (b"\n" * 5_000_000 + b"{}\n{}", LINES),
    ):
        if kind == LINES and body[:1] == b"\n":
            body = b"{}" + body
        with pytest.raises(RefusedError) as caught:
            split(body, kind)
        assert caught.value.status == 413


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 2_000_000,
        b"[" + b'{"a":' * 1_000_000,
        b'["' + b"\\" * 3_000_001,
        b'[{"a":"' + b'\\"' * 2_000_000,
        b"[" + b'"a",' * 1_000 + b'"' * 2_000_000,
        b"[{" + b'"role"' * 500_000 + b"}]",
        b'{"a":' + b"[0,1,2,3]," * 300_000,
    ],
    ids=lambda body: repr(body[:8]),
)
def test_hostile_bodies_take_no_longer_than_their_size(body: bytes) -> None:
    began = time.process_time()
    assert b"".join(split(body, JSON)).translate(None, b"[],") == body.translate(None, b"[],")
    assert time.process_time() - began < 10
