"""JSON within strings."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.stream.formats.inner import without_surrogates
from monitor.stream.formats.text import structured, turns


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ('{"a": [1]}', {"a": [1]}),
        (" [1]", [1]),
        ('{"a": ', '{"a": '),
        ("plain", "plain"),
        ("7", "7"),
        (7, 7),
        (["x"], ["x"]),
        ("[" * 100_000, "[" * 100_000),
        (r'{"a\ud83d": "\ud83d!", "b": "\ud83d\ude00"}', {"a\ufffd": "\ufffd!", "b": "\U0001f600"}),
    ],
)
def test_structure_in_a_string(value: Any, found: Any) -> None:
    assert structured(value) == found


def test_surrogates_go_everywhere() -> None:
    assert without_surrogates({"\ud800": ["a\udfff", 1, None]}) == {"\ufffd": ["a\ufffd", 1, None]}


def test_items_that_say_whose_they_are_stay_items() -> None:
    items = [{"type": "message", "content": "Hi"}, {"type": "function_call_output", "call_id": "1", "output": "x"}]
    assert turns(items, "user", None, []) == items
    parts = [{"type": "text", "text": "Hi"}, {"type": "image_url"}]
    assert turns(parts, "user", None, []) == [{"role": "user", "content": parts}]


@pytest.mark.parametrize("value", [None, "", [], {}, "[]", "{}", 0, False])
def test_nothing_gives_no_turns(value: Any) -> None:
    notes: list[str] = []
    assert turns(value, "user", "field", notes) == notes == []
