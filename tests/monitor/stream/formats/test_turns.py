"""Turns by themselves: lists, and objects that name them otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from monitor.stream.parse import parse
from monitor.stream.wire import WireMessage
from tests.monitor.stream.formats.reading import read

SHARED = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Tide?"},
    {"from": "gpt", "value": "Six."},
]
READ = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Tide?"},
    {"role": "assistant", "content": "Six."},
]
CHAIN = [
    {"type": "system", "data": {"content": "Be brief."}},
    {"type": "human", "data": {"content": "Tide?"}},
    {"type": "ai", "data": {"content": "Six.", "tool_calls": []}},
]


@pytest.mark.parametrize("payload", [SHARED, READ, CHAIN, [READ], [CHAIN]])
def test_a_list_of_turns_is_one_conversation(payload: Any) -> None:
    found = read(payload)
    assert (found.format, found.turns) == ("turns", READ)


@pytest.mark.parametrize("key", ["conversations", "conversation", "turns", "dialogue", "history", "chat"])
def test_turns_under_another_name_keep_what_stands_beside_them(key: str) -> None:
    beside = {"id": "d-1", "tenant": "t", "model": "m", "conversation_id": "c-1", "system": "Be kind."}
    found = read(beside | {key: SHARED, "response": "Bye."})
    assert found.turns == [{"role": "system", "content": "Be kind."}, *READ]
    assert (found.id, found.tenant, found.model, found.conversation_id) == ("d-1", "t", "m", "c-1")
    assert found.response == "Bye."


def test_a_list_of_messages_is_no_list_of_turns() -> None:
    found = parse(json.dumps([{"prompt": "a"}, {"messages": READ}]).encode())
    assert [isinstance(each, WireMessage) and each.format for each in found] == ["awry", "awry"]
