"""Mutated payloads of every format: each ends as a message or with a reason; nothing raises, no reason holds text."""

from __future__ import annotations

import copy
import json
import os
import random
from typing import Any

import pytest

from monitor.stream.parse import parse
from monitor.stream.wire import Invalid
from storage.coordinates import clean
from tests.support.stream.renderings import RENDERINGS, Call, Conversation, Said, Tool, render

CANARY = "CANARYTEXT"
# AWRY_FUZZ=10000 for the long run.
ROUNDS = int(os.environ.get("AWRY_FUZZ", "400"))

CONVERSATION = Conversation(
    (
        Said("user", f"{CANARY} one"),
        Said("assistant", f"{CANARY} two", (Call("c1", "look", {"at": f"{CANARY} three"}),)),
        Said("tool", f"{CANARY} four", call=Call("c1", "look", {})),
        Said("user", f"{CANARY} five"),
    ),
    f"{CANARY} six",
    (Tool("look", f"{CANARY} seven", {"type": "object", "properties": {"at": {"type": "string"}}}),),
    Said("assistant", f"{CANARY} eight", (Call("c2", "look", {"at": "x"}),)),
)
_DEEP: Any = CANARY
for _ in range(200):
    _DEEP = [_DEEP] if _ % 2 else {"content": _DEEP}
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e308, float("nan"), float("inf"), 10**400, "", " ", CANARY, "\x00", "\ud83d"),
    *([], {}, [[]], [None], [1, 2, 3], {"": ""}, {"type": []}, {"type": "text"}, {"role": {}}, _DEEP),
    *(f"data: {CANARY}", f'{{"a": "{CANARY}"', '["\\ud83d"]', "data:text/plain;base64,!!!!", "A" * 5000, {"text": {}}),
    *([{"type": "tool_result", "content": {"a": 1}}], [{"functionCall": 5}], {"role": CANARY * 99}, {CANARY: CANARY}),
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of everything within a value."""
    found = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, each in list(items):
            found.append((holder, key))
            if isinstance(each, dict | list):
                waiting.append(each)
    return found


def _mutate(payload: Any, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 4)):
        places = _places(payload)
        if not places:
            return
        holder, key = chance.choice(places)
        kind = chance.randrange(5)
        if kind == 0:
            # A copy: later mutations would change the list itself.
            holder[key] = copy.deepcopy(chance.choice(ODD))
        elif kind == 1:
            del holder[key]
        elif kind == 2 and isinstance(holder, dict):
            other, name = chance.choice(places)
            holder[name if isinstance(name, str) else "x"] = json.loads(json.dumps(holder.pop(key)))
        elif kind == 3:
            holder[key] = [holder[key]] if chance.random() < 0.5 else {"content": holder[key]}
        else:
            other, name = chance.choice(places)
            try:
                holder[key] = json.loads(json.dumps(other[name]))
            except (KeyError, IndexError):
                continue


def check(payload: bytes) -> None:
    """The contract of `parse` on anything."""
    found = parse(payload)
    assert found
    for each in found:
        assert CANARY not in " ".join(each.notes)
        assert CANARY not in " ".join(each.unread)
        if isinstance(each, Invalid):
            assert each.reason
            assert CANARY not in each.reason
            assert "reader" not in each.reason, "a reader raised"
            continue
        said = any(turn["content"].strip() or turn.get("tool_calls") for turn in each.turns)
        assert said or (each.response or "").strip() or each.tools
        for turn in each.turns:
            assert isinstance(turn["role"], str)
            assert len(turn["role"]) <= 64
            assert isinstance(turn["content"], str)
            assert set(turn) <= {"role", "content", "tool_calls", "tool_call_id", "name"}
            for call in turn.get("tool_calls", ()):
                assert isinstance(call["function"]["name"], str)
                assert isinstance(call["function"]["arguments"], dict | str)
        assert all(isinstance(tool["function"]["name"], str) for tool in each.tools)
        assert each.response is None or isinstance(each.response, str)
        # What is kept can be written down as JSON and as UTF-8.
        assert len(each.text_sha256) == 64
        json.dumps(clean(each.stored_text), allow_nan=False, ensure_ascii=False).encode()
        json.dumps(clean(each.attributes), allow_nan=False).encode()


@pytest.mark.parametrize("format_", RENDERINGS)
def test_mutated_payloads_end_as_a_message_or_with_a_reason(format_: str) -> None:
    chance = random.Random(f"{format_} 1")
    whole = json.dumps(render(CONVERSATION, format_))
    for _ in range(ROUNDS):
        payload = json.loads(whole)
        _mutate(payload, chance)
        check(json.dumps(payload).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("format_", RENDERINGS)
def test_broken_bytes_end_as_a_message_or_with_a_reason(format_: str) -> None:
    chance = random.Random(f"{format_} 2")
    whole = json.dumps(render(CONVERSATION, format_)).encode()
    for _ in range(ROUNDS // 4):
        payload = bytearray(whole)
        for _ in range(chance.randint(1, 5)):
            at = chance.randrange(len(payload))
            payload[at : at + chance.randint(0, 3)] = bytes(
                chance.choices(b'{}[]",:\\nul0\xff a', k=chance.randint(0, 3))
            )
        check(bytes(payload))
