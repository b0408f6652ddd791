"""A turn's own tokens under templates of every kind, against a conversation of the same shape that nothing confuses.

The sibling of a conversation has one letter of its own for each turn in place of its letters, white space as it was.
Rendered in the same form, it shows where each turn's text goes, whatever the turns say.
"""

from __future__ import annotations

import re
import time
from functools import cache
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors

from probes.capture.batches import SPANS_NOT_KNOWN, TURN_NOT_FOUND, encode
from probes.model.load import ChatModel, wrap
from probes.model.render import Rendered, form_of
from probes.model.spans import TurnSpan
from tests.probes.model.templates import CHATML, GEMMA, LLAMA3, MISTRAL, QWEN, SILENT, TEMPLATES, call, chat_with, tool
from tests.probes.model.test_control_tokens import KINDS, _tokenizer
from tests.support.models.tiny import TEMPLATE, shared_chat, tiny_tokenizer, user

Turns = list[dict[str, Any]]
# Joined without a word between them, as base models are used.
PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
ALL = {**TEMPLATES, "tiny": TEMPLATE, "plain": PLAIN}
SPECIAL = ("as_tokens", "as_text")


@cache
def chat_of(name: str, special: Any = "as_tokens") -> ChatModel:
    return chat_with(ALL[name], special_tokens=special)


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def said(chat: ChatModel, ids: list[int] | tuple[int, ...]) -> str:
    text: str = chat.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def letter(i: int) -> str:
    return chr(0xE000 + i)


def by_sibling(chat: ChatModel, rendered: Rendered, turns: Turns) -> dict[int, tuple[str, str]]:
    """For each turn that the template writes: the text before it, and its own."""
    sibling = [{**t, "content": re.sub(r"\S", letter(i), t["content"])} for i, t in enumerate(turns)]
    made, tools, _ = form_of(sibling, rendered.sent_tools, rendered.steps)
    text = chat._template.text(made, tools)
    assert len(text) == len(rendered.text)
    found = {}
    for i in range(len(turns)):
        if letter(i) in text:
            start, stop = text.index(letter(i)), text.rindex(letter(i)) + 1
            found[i] = (rendered.text[:start], rendered.text[start:stop])
    return found


CONTENTS = [
    *("", "  ", "\n", "Hi", "Hi", " Hi there\n", "user", "assistant", "é語🙂 é", "x" * 40),
    *("<|im_end|>", "Hi<|im_end|>\n<|im_start|>user\nHi", "<|turn|>user\nHi<|end|>", "<|user|>Hi<|end|><|assistant|>"),
    *(
        "[INST]Hi[/INST]",
        "U: Hi\nA: ",
        "system: Hi",
        "</s>",
        "<tool_response>\nHi\n</tool_response>",
        "{{ m.content }}",
    ),
    *("<|start|>user<|stop|>\n\nHi<|eot|>", "Hi</think>there", "\u00a0wide\u3000", "\x1c a \x1f", "awry0a"),
]
ROLES = ["system", "developer", "user", "assistant", "tool", "function", "critic", "<|im_end|> odd"]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Turns, list[dict[str, Any]]]:
    turns = []
    for role in draw(st.lists(st.sampled_from(ROLES), min_size=1, max_size=7)):
        content = draw(st.sampled_from(CONTENTS))
        # What else templates make of a turn has tests of its own: reasoning, and quoted results.
        if (role == "assistant" and "think>" in content) or (role in ("tool", "ipython") and "\n" in content):
            content = "Hi"
        turns.append(turn(role, content))
    return turns, [tool("f", "Hi")] if draw(st.booleans()) else []


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=120, deadline=None)
@given(conversations())
def test_each_turn_is_where_its_sibling_is(name: str, special: str, sent: tuple[Turns, list[dict[str, Any]]]) -> None:
    turns, tools = sent
    chat = chat_of(name, special)
    rendered = chat.rendered(turns, tools)
    found = chat.prompt_tokens(rendered)
    assert found.ids == chat.prompt_ids(rendered)
    assert found.turns is not None
    wanted = by_sibling(chat, rendered, turns)
    assert {
        t.turn: (said(chat, found.ids[: t.start]), said(chat, found.ids[t.start : t.stop])) for t in found.turns
    } == (wanted)
    assert len(found.turns) == len(wanted)
    assert found.lost == tuple(i for i, t in enumerate(turns) if t["content"].strip() and i not in wanted)
    for t in found.turns:
        role = turns[t.turn]["role"]
        assert t.role == ("other" if role in ("critic", "<|im_end|> odd") else role)


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40, deadline=None)
@given(conversations(), st.sampled_from(["", "An answer."]), st.integers(1, 400))
def test_looking_for_turns_changes_nothing_else(
    name: str, special: str, sent: tuple[Turns, list[dict[str, Any]]], response: str, limit: int
) -> None:
    turns, tools = sent
    chat = chat_of(name, special)
    plain = encode(chat, turns, response, limit, tools=tools)
    found = encode(chat, turns, response, limit, tools=tools, spans=True)
    assert (found.ids, found.n_prompt, found.truncated, found.rendered) == (
        (plain.ids, plain.n_prompt, plain.truncated, plain.rendered)
    )
    assert (plain.spans, found.spans) == ("not asked", "known")
    assert set(found.adapted) - set(plain.adapted) <= {TURN_NOT_FOUND}


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40, deadline=None)
@given(conversations(), st.integers(1, 300))
def test_a_cut_clips_turns_and_takes_those_that_are_gone(
    name: str, sent: tuple[Turns, list[dict[str, Any]]], limit: int
) -> None:
    chat = chat_of(name)
    whole = encode(chat, sent[0], spans=True)
    cut = encode(chat, sent[0], None, limit, spans=True)
    gone = len(whole.ids) - len(cut.ids)
    left = [(t.turn, i - gone) for t in whole.turns for i in range(t.start, t.stop) if i >= gone]
    assert [(t.turn, i) for t in cut.turns for i in range(t.start, t.stop)] == left
    assert all(t.start < t.stop for t in cut.turns)


def spans_of(chat: ChatModel, turns: Turns, tools: Any = None) -> list[tuple[int, str, str]]:
    found = chat.prompt_tokens(chat.rendered(turns, tools))
    assert found.turns is not None
    return [(t.turn, t.role, said(chat, found.ids[t.start : t.stop])) for t in found.turns]


def test_turns_that_say_the_same_are_told_apart() -> None:
    chat = chat_of("chatml")
    turns = [turn("user", "Hi"), turn("assistant", "Hi"), turn("user", "Hi")]
    found = chat.prompt_tokens(chat.rendered(turns))
    assert found.turns is not None
    text = chat.render(turns)
    places = [place.start() for place in re.finditer("Hi", text)]
    assert [said(chat, found.ids[: t.start]) for t in found.turns] == [text[:place] for place in places]


def test_joined_turns_keep_their_roles() -> None:
    turns = [turn("system", "Be kind."), turn("user", "One"), turn("user", "Two"), turn("assistant", "Yes")]
    wanted = [(0, "system", "Be kind."), (1, "user", "One"), (2, "user", "Two"), (3, "assistant", "Yes")]
    assert spans_of(chat_of("gemma"), turns) == wanted
    everything = [turn("tool", "T"), turn("critic", "C"), *turns]
    roles = ["tool", "other", "system", "user", "user", "assistant"]
    assert [(role, text) for _, role, text in spans_of(chat_of("gemma"), everything)] == [
        (role, t["content"]) for role, t in zip(roles, everything, strict=True)
    ]


def test_a_moved_system_turn_is_found_where_it_went() -> None:
    turns = [turn("system", "S"), turn("user", "A"), turn("assistant", "B"), turn("user", "C")]
    assert spans_of(chat_of("mistral"), turns) == [
        *((1, "user", "A"), (2, "assistant", "B"), (0, "system", "S"), (3, "user", "C"))
    ]


def test_text_that_is_written_twice_is_the_turns_both_times() -> None:
    chat = chat_with("{{ messages[-1].content }}!{% for m in messages %}({{ m.content }}){% endfor %}")
    turns = [turn("user", "A"), turn("user", "B")]
    assert spans_of(chat, turns) == [(1, "user", "B"), (0, "user", "A"), (1, "user", "B")]
    assert spans_of(chat, turns[1:]) == [(0, "user", "B"), (0, "user", "B")]


# Calls, results, reasoning


@pytest.mark.parametrize("arguments", [{"city": 'Łódź "x"', "days": 2}, '{"city": "Łódź", "days": 2}', "no json"])
@pytest.mark.parametrize("name", ["qwen", "chatml", "gemma", "silent"])
def test_calls_are_the_assistants(name: str, arguments: Any) -> None:
    turns = [
        turn("user", "Łódź"),
        turn("assistant", "So:", tool_calls=[call("weather", arguments), call("mail", {"to": "a", "n": 1})]),
        turn("tool", 'Łódź "x"\nRain'),
    ]
    found = spans_of(chat_of(name), turns, [tool("weather", "Łódź")])
    assert [(t, role) for t, role, _ in found] == [(0, "user"), *[(1, "assistant")] * 3, (2, "tool")]
    texts = [text for _, _, text in found]
    assert (texts[0], texts[1], texts[4]) == ("Łódź", "So:", 'Łódź "x"\nRain')
    assert texts[2].startswith("weather")
    assert ("no json" if arguments == "no json" else "Łódź") in texts[2]
    assert texts[2].endswith(("Łódź", 'x\\"', "no json", 'x\\\\\\"'))
    assert texts[3].startswith("mail")
    assert texts[3].endswith('"a')


def test_a_call_alone_is_the_turns() -> None:
    turns = [turn("user", "A"), turn("assistant", "", tool_calls=[call("f", {"x": "y"})]), turn("tool", 'say "no"\n')]
    assert spans_of(chat_of("llama3"), turns) == [
        *((0, "user", "A"), (1, "assistant", 'f", "parameters": {"x": "y'), (2, "tool", 'say \\"no\\"\\n'[:-2]))
    ]
    assert [text for _, _, text in spans_of(chat_of("mistral"), turns)] == ["A", 'f {"x": "y', 'say "no"']


def test_reasoning_that_is_left_out_leaves_the_answer() -> None:
    turns = [turn("user", "A"), turn("assistant", "<think>\nB\n</think>\n\nHello\n"), turn("user", "C")]
    assert spans_of(chat_of("qwen"), turns) == [(0, "user", "A"), (1, "assistant", "Hello"), (2, "user", "C")]
    assert spans_of(chat_of("qwen"), turns[:2])[1] == (1, "assistant", "<think>\nB\n</think>\n\nHello")
    # One that writes the reasoning anew, as newer ones do.
    again = chat_with(
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' and '</think>' in m.content %}"
        "[{{ m.content.split('</think>')[0].split('<think>')[-1] | trim }}] "
        "{{ m.content.split('</think>')[-1] | trim }}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
    )
    assert spans_of(again, turns) == [(0, "user", "A"), (1, "assistant", "B] Hello"), (2, "user", "C")]
    # The user's marks are text.
    assert spans_of(chat_of("qwen"), user("a</think>b")) == [(0, "user", "a</think>b")]


# Where marks change what a template does

_ANSWERED = (
    "{% if m.content.startswith('<r>') and m.content.endswith('</r>') %}R{% else %}T{% endif %}: {{ m.content }}\n"
)
_LENGTH = "{{ m.content | length }}: {{ m.content }}\n"
_WHOLE = "{% for m in messages %}{% if m.content == 'Hi' %}greeting: {% endif %}{{ m.content }}\n{% endfor %}"


def over(line: str) -> ChatModel:
    return chat_with("{% for m in messages %}" + line + "{% endfor %}")


def test_a_template_that_looks_at_the_ends_of_a_turn() -> None:
    turns = [turn("tool", "<r>Hi</r>"), turn("user", "<r>Hi</r>"), turn("user", "Hi"), turn("user", "R")]
    assert [(t, text) for t, _, text in spans_of(over(_ANSWERED), turns)] == [
        (i, t["content"]) for i, t in enumerate(turns)
    ]


def test_a_template_that_counts_letters_leaves_what_is_said_once() -> None:
    chat = over(_LENGTH)
    assert spans_of(chat, [turn("user", "one"), turn("user", "other")]) == [(0, "user", "one"), (1, "user", "other")]
    # Said twice, or within another, it could be either.
    for turns in ([turn("user", "one"), turn("user", "one")], [turn("user", "one"), turn("user", "one more")]):
        found = chat.prompt_tokens(chat.rendered(turns))
        assert all("more" in said(chat, found.ids[t.start : t.stop]) for t in found.turns or ())
        assert 0 in found.lost
        encoded = encode(chat, turns, spans=True)
        assert encoded.adapted == (TURN_NOT_FOUND,)


def test_a_template_that_drops_part_of_a_turn_loses_it() -> None:
    chat = over("{{ m.content.split('|')[-1] }}\n")
    found = chat.prompt_tokens(chat.rendered([turn("user", "gone|here"), turn("user", "B")]))
    assert found.turns is not None
    assert ([t.turn for t in found.turns], found.lost) == ([1], (0,))


def test_a_template_that_changes_a_word_is_followed() -> None:
    chat = over("{{ m.content.replace('zebra', '') }}\n")
    assert spans_of(chat, [turn("user", "a zebra b"), turn("user", "a  b")]) == [
        *((0, "user", "a  b"), (1, "user", "a  b"))
    ]


def test_a_content_in_parts_is_its_texts() -> None:
    chat = over(
        "{% if m.content is string %}{{ m.content }}"
        "{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}|"
    )
    parts = [{"type": "text", "text": "One "}, {"type": "text", "text": "two"}]
    rendered = chat.rendered([turn("user", parts)])
    found = chat.prompt_tokens(rendered)
    assert found.ids == chat.prompt_ids(rendered)
    if rendered.how == "template":
        assert [said(chat, found.ids[t.start : t.stop]) for t in found.turns or ()] == ["One two"]


# Tokenizers


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("kind", KINDS)
def test_other_tokenizers(kind: str, special: Any) -> None:
    tokenizer = _tokenizer(kind)
    chat = wrap(shared_chat().model, tokenizer, name="x", special_tokens=special)
    for content in ("ab c", " ab </s>\nab ", "<s>", "a[user]:a", "c <|go|> ab"):
        turns = [turn("user", content), turn("user", "ab")]
        rendered = chat.rendered(turns)
        found = chat.prompt_tokens(rendered)
        assert found.ids == chat.prompt_ids(rendered)
        assert [t.turn for t in found.turns or ()] == [0, 1]
        pieces = ["".join(tokenizer.convert_ids_to_tokens(found.ids[t.start : t.stop])) for t in found.turns or ()]
        # Control tokens take the space around them, or put one there.
        assert [re.sub("[▁ ]", "", piece) for piece in pieces] == [content.strip().replace(" ", ""), "ab"]


def test_a_token_over_the_border_is_of_both_turns() -> None:
    pieces = ["<unk>", "a", "b", "c", " ", "ab"]
    backend = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [("a", "b")], unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="c")
    tokenizer.chat_template = PLAIN
    chat = wrap(shared_chat().model, tokenizer, name="x")
    found = chat.prompt_tokens(chat.rendered([turn("user", "ca"), turn("assistant", "bc"), turn("user", " c")]))
    assert tokenizer.convert_ids_to_tokens(found.ids) == ["c", "ab", "c", " ", "c"]
    assert found.turns == (TurnSpan(0, "user", 0, 2), TurnSpan(1, "assistant", 1, 3), TurnSpan(2, "user", 4, 5))


def test_white_space_that_a_tokenizer_leaves_out_of_its_offsets() -> None:
    """A byte-level one that trims: a token of white space has no letter, and is of a turn only within it."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.chat_template = "{% for m in messages %} \n{{ m.content }} {% endfor %}"
    chat = wrap(shared_chat().model, tokenizer, name="x")
    found = chat.prompt_tokens(chat.rendered([turn("user", " a  b "), turn("user", "c")]))
    assert [said(chat, found.ids[t.start : t.stop]) for t in found.turns or ()] == ["a  b", "c"]
    assert [t.start for t in found.turns or ()] == [3, 11]


class Slow:
    """A tokenizer that does not say which letters its tokens were made of."""

    def __init__(self) -> None:
        self._own = tiny_tokenizer()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": self._own(text, **options)["input_ids"]}


def test_a_tokenizer_that_does_not_say_where_its_tokens_are_says_so() -> None:
    chat = wrap(shared_chat().model, Slow(), name="x")
    found = encode(chat, user("Hi"), spans=True)
    assert (found.ids, found.turns, found.spans) == (encode(chat, user("Hi")).ids, (), "not known")
    assert found.adapted == (SPANS_NOT_KNOWN,)


@pytest.mark.parametrize("template", [CHATML, MISTRAL, GEMMA, LLAMA3, SILENT, QWEN])
def test_many_turns_cost_as_much_as_their_text(template: str) -> None:
    chat = chat_with(template)

    def seconds(n: int) -> float:
        turns = [turn("system", "S" * 50)]
        turns += [turn(("user", "assistant")[i % 2], f"{i}: " + "word " * 30) for i in range(n)]
        rendered, best = chat.rendered(turns), float("inf")
        for _ in range(3):
            started = time.process_time()
            found = chat.prompt_tokens(rendered)
            best = min(best, time.process_time() - started)
        assert found.lost == ()
        return best

    seconds(50)
    assert seconds(2000) < 30 * seconds(200)
