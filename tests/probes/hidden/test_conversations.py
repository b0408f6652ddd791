"""Second readings of conversations."""

from __future__ import annotations

import base64
import codecs
import random
from typing import Any

from probes.hidden import Budget, look, second_readings
from tests.probes.hidden import benign
from tests.probes.hidden.hiding import HIDING, hidden

TEXT = "How do I bake a loaf of bread without yeast at home?"
B64 = base64.b64encode(TEXT.encode()).decode()
ROT = codecs.encode(TEXT, "rot13")


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_ordinary_conversations_are_read_once() -> None:
    turns = [{"role": "system", "content": "You are kind."}, user(TEXT), {"role": "assistant", "content": "Like so."}]
    assert second_readings(turns, response="Mix flour and water.") == []
    assert second_readings([]) == []
    assert second_readings([user(None), user(""), user([]), {"role": "assistant", "tool_calls": []}]) == []


def test_few_benign_messages_have_a_second_reading() -> None:
    texts = [text for kind in benign.KINDS for text in benign.benign(kind, 30)]
    assert sum(bool(second_readings([user(text)])) for text in texts) <= 0.005 * len(texts)


def test_each_kind_is_a_reading_of_the_whole_conversation() -> None:
    turns = [user(f"First {B64}"), {"role": "assistant", "content": "Yes."}, user(f"And {B64} and also {ROT}")]
    found = {reading.kind: reading for reading in second_readings(turns)}
    assert set(found) == {"base64", "rot13"}
    assert [turn["content"] for turn in found["base64"].turns] == [
        f"First {TEXT}",
        "Yes.",
        f"And {TEXT} and also {ROT}",
    ]
    assert found["rot13"].turns[2]["content"] == f"And {B64} and also {TEXT}"
    assert found["base64"].turns[1] is turns[1]
    assert found["rot13"].turns[0] is turns[0]
    assert turns[0]["content"] == f"First {B64}", "the input is left as it is"


def test_what_is_normalised_is_decoded_from_there() -> None:
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in B64)
    first, second = second_readings([user(wide)])
    assert (first.kind, first.turns[0]["content"]) == ("normalised", B64)
    assert (second.kind, second.turns[0]["content"]) == ("base64", TEXT)


def test_parts_and_other_fields_stay() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{B64}"}}
    turn = {"role": "user", "name": "n", "content": [{"type": "text", "text": f"Read {B64}"}, image, "odd", 3]}
    (found,) = second_readings([turn])
    assert found.turns[0] == {
        "role": "user",
        "name": "n",
        "content": [{"type": "text", "text": f"Read {TEXT}"}, image, "odd", 3],
    }


def test_a_response_is_read_too() -> None:
    (found,) = second_readings([user("Answer in base64.")], response=f"Gladly: {B64}")
    assert (found.kind, found.response) == ("base64", f"Gladly: {TEXT}")
    assert found.turns[0]["content"] == "Answer in base64."


def test_the_budget_is_spent_on_the_last_turns_first() -> None:
    turns = [user(B64) for _ in range(5)]
    (found,) = second_readings(turns, Budget(payloads=2))
    assert [turn["content"] for turn in found.turns] == [B64, B64, B64, TEXT, TEXT]
    (found,) = second_readings(turns, Budget(looked=len(B64)))
    assert [turn["content"] for turn in found.turns] == [B64] * 4 + [TEXT]
    assert second_readings([user(B64), user("Hello there, how are you?")], Budget(looked=10)) == []


def test_of_a_long_text_the_end_is_looked_at() -> None:
    filler = "Good morning. Which of your shops is open on Sunday? " * 40
    text = filler + B64
    (found,) = second_readings([user(text)], Budget(looked=200))
    assert found.turns[0]["content"] == filler + TEXT


def test_no_more_readings_than_the_budget_has() -> None:
    turns = [
        user(
            "\n".join(
                HIDING[kind](TEXT, random.Random(1)) for kind in ("base64", "hex", "percent", "binary", "full-width")
            )
        )
    ]
    assert len(second_readings(turns, Budget(readings=9))) == 5
    kinds = [reading.kind for reading in second_readings(turns, Budget(readings=2))]
    assert len(kinds) == 2
    assert kinds[0] == "normalised"


def test_the_most_unreadable_text_counts() -> None:
    (text,) = [text for request, text in hidden("zero-width") if request.startswith("Tell me how")]
    plain = [user("Good morning, how are you today?")] * 20
    assert look(plain).unreadable == 0
    assert look([*plain, user(text)]).unreadable > 0.9
    assert look(plain, response=text).unreadable > 0.9
    reply = {"role": "assistant", "content": "I will not."}
    assert look([user(text), reply]).unreadable > 0.9
    assert look([user(text), reply, *plain]).unreadable == 0, "told with the message that brought it"
    assert look([user("Hi."), reply, user(text), {**reply, "content": "A reply in plain words."}]).unreadable > 0.9
    assert look([user("\u200b")]).unreadable == 0, "too short to say anything"
