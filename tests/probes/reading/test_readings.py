"""What is read of a message, and scores offline."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from probes.capture.aggregation import parse_aggregation
from probes.capture.sites import Site
from probes.directions import Direction
from probes.model.load import ChatModel
from probes.reading import Conversation, read_values
from probes.reading.readings import ReadingSettings, readings, tokens_of
from probes.scoring import Reader
from tests.support.models.tiny import shared_chat, user

SENTENCE = "Please tell me how the river reached the old town in winter"


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return shared_chat("llama")


def reader(chat: ChatModel, aggregation: str) -> Reader:
    width = chat.layout.width
    rng = np.random.default_rng(0)
    direction = Direction(Site("residual", 1), rng.standard_normal(width), np.zeros(width), 1.0)
    return Reader((direction,), parse_aggregation(aggregation))


def settings(*spans: str, **options: int) -> ReadingSettings:
    return ReadingSettings(spans or ("user",), **options)  # type: ignore[arg-type]


def test_an_ordinary_message_is_read_once(chat: ChatModel) -> None:
    found = readings(chat, Conversation(user(SENTENCE)), settings(), tokens_of(chat))
    assert [r.kind for r in found.all] == ["plain"]
    assert found.second_tokens == 0
    assert found.unreadable == 0


def test_what_is_encoded_is_read_as_if_it_were_not(chat: ChatModel) -> None:
    hidden = base64.b64encode(SENTENCE.encode()).decode()
    found = readings(chat, Conversation(user(hidden)), settings())
    assert [r.kind for r in found.all] == ["plain", "base64"]
    as_it_is = readings(chat, Conversation(user(SENTENCE)), settings())
    assert found.all[1].encoded.ids == as_it_is.plain.ids
    assert found.second_tokens == len(as_it_is.plain.ids)
    values = [read_values(chat, [reader(chat, "mean(user)")], [Conversation(user(t))]) for t in (hidden, SENTENCE)]
    assert values[0].values[0, 0] >= values[1].values[0, 0] - 1e-4


def test_second_readings_can_be_switched_off(chat: ChatModel) -> None:
    hidden = base64.b64encode(SENTENCE.encode()).decode()
    off = ReadingSettings(("user",), second=False)
    assert len(readings(chat, Conversation(user(hidden)), off).all) == 1


def test_a_response_is_read_only_where_a_probe_reads_it(chat: ChatModel) -> None:
    talk = Conversation(user(SENTENCE), "A reply of some words")
    for span, read in (("user", False), ("response", True)):
        plain = readings(chat, talk, settings(span)).plain
        assert (plain.n_prompt < len(plain.ids)) is read


def test_a_maximum_finds_what_stands_at_the_start_of_an_over_long_message(chat: ChatModel) -> None:
    """The plain reading is the end alone."""
    top = reader(chat, "max_rolling_mean(2, user)")
    words = SENTENCE.split()
    alone = {word: read_values(chat, [top], [Conversation(user(word * 3))]).values[0, 0] for word in words}
    highest, lowest = max(alone, key=lambda w: alone[w]), min(alone, key=lambda w: alone[w])
    long = Conversation(user(" ".join([highest] * 12 + [lowest] * 200)))
    with_windows = read_values(chat, [top], [long], max_tokens=96, max_windows=16)
    without = read_values(chat, [top], [long], max_tokens=96, max_windows=0)
    assert with_windows.values[0, 0] > without.values[0, 0]
    assert with_windows.tokens[0, 0] > without.tokens[0, 0]


def test_a_message_without_the_span_has_no_value(chat: ChatModel) -> None:
    only_system = Conversation([{"role": "system", "content": SENTENCE}])
    found = read_values(chat, [reader(chat, "mean(tool)")], [only_system])
    assert np.isnan(found.values[0, 0])


def test_what_is_split_over_turns_is_read_joined(chat: ChatModel) -> None:
    words = SENTENCE.split()
    turns = [
        {"role": "user", "content": " ".join(words[:6])},
        {"role": "assistant", "content": "Go on."},
        {"role": "user", "content": " ".join(words[6:])},
    ]
    found = readings(chat, Conversation(turns), settings("turns"))
    assert [r.kind for r in found.all] == ["plain", "joined"]
    assert found.all[1].encoded.ids == readings(chat, Conversation(user(SENTENCE)), settings("turns")).plain.ids
    # A probe of the whole prompt does not read so, nor are long turns read twice.
    assert not found.all[1].stands_for("prompt")
    assert [r.kind for r in readings(chat, Conversation(turns), settings("prompt")).all] == ["plain"]
    long = [{**turn, "content": turn["content"] + " and so on" * 200} for turn in turns]
    assert "joined" not in {r.kind for r in readings(chat, Conversation(long), settings("turns")).all}


def test_what_is_encoded_before_a_long_text_is_read_in_windows(chat: ChatModel) -> None:
    hidden = base64.b64encode(SENTENCE.encode()).decode()
    found = readings(chat, Conversation(user(hidden + " and so on" * 200)), settings(max_tokens=96, max_windows=8))
    undone = [r for r in found.all if r.kind == "base64"]
    assert [r.window is None for r in undone][:2] == [True, False]
    assert SENTENCE.split()[3] in chat.tokenizer.decode(undone[1].encoded.ids)
    assert all(window.reads == "prompt" for window in found.windows)
