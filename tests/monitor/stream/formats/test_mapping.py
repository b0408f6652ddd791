"""Mappings: what they find, what they say of their own mistakes, and what is left to the recognised formats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import SettingsError
from monitor.stream.parse import Parsed, ParseOptions, Parser
from monitor.stream.wire import Invalid, WireMessage

LOG = {
    "meta": {"customer": "acme", "who": "ann", "at": 1_700_000_000, "rid": "r1", "cid": "c1", "trace": "t1"},
    "call": {
        "model": "gpt",
        "system": "Be brief.",
        "turns": [{"role": "user", "content": "Hi"}],
        "fns": '[{"type": "function", "function": {"name": "f", "parameters": {}}}]',
    },
    "out": [{"text": "Hello"}],
    "extra": {"region": "eu", "cost": 0.5},
}
MAPPING = {
    "messages": "call.turns",
    "system": "call.system",
    "response": "out[0].text",
    "tools": "call.fns",
    "id": "meta.rid",
    "model": "call.model",
    "tenant": "meta.customer",
    "user": "meta.who",
    "conversation_id": "meta.cid",
    "timestamp": "meta.at",
    "trace_id": "meta.trace",
    "attributes": "extra",
}


def read(mapping: dict[str, str], value: Any, format_: str = "auto") -> list[Parsed]:
    return Parser(ParseOptions(format_, mapping))(json.dumps(value).encode())


def test_every_field_is_found() -> None:
    (message,) = read(MAPPING, LOG)
    assert isinstance(message, WireMessage)
    assert [(turn["role"], turn["content"]) for turn in message.turns] == [("system", "Be brief."), ("user", "Hi")]
    assert message.response == "Hello"
    assert [tool["function"]["name"] for tool in message.tools] == ["f"]
    assert (message.id, message.model, message.tenant, message.user) == ("r1", "gpt", "acme", "ann")
    assert (message.conversation_id, message.trace_id) == ("c1", "t1")
    assert message.timestamp is not None
    assert message.timestamp.timestamp() == 1_700_000_000
    assert message.attributes == {"region": "eu", "cost": 0.5}
    assert (message.format, message.notes) == ("mapping", ())


def test_each_gives_many_messages() -> None:
    rows = {"tenant": "acme", "rows": [{"q": "one"}, {"q": "two", "a": "2"}, {}]}
    first, second, third = read({"each": "rows", "prompt": "q", "response": "a"}, rows)
    assert isinstance(first, WireMessage)
    assert isinstance(second, WireMessage)
    assert (first.turns[0]["content"], second.response) == ("one", "2")
    assert isinstance(third, Invalid)
    assert third.status == "skipped"


@pytest.mark.parametrize(
    ("found", "contents"),
    [
        ("Hi", ["Hi"]),
        ({"role": "user", "content": "Hi"}, ["Hi"]),
        ('[{"role": "user", "content": "Hi"}]', ["Hi"]),
        (["Hi", "there"], ["Hi", "there"]),
        ([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], ["Hi"]),
        ('{"not": "turns"}', ['{"not": "turns"}']),
    ],
)
def test_forms_of_turns(found: Any, contents: list[str]) -> None:
    (message,) = read({"messages": "log"}, {"log": found})
    assert isinstance(message, WireMessage)
    assert [turn["content"] for turn in message.turns] == contents


def test_a_prompt_that_looks_like_json_is_text() -> None:
    (message,) = read({"prompt": "q"}, {"q": '[{"role": "user", "content": "Hi"}]'})
    assert isinstance(message, WireMessage)
    assert message.turns[0]["content"].startswith("[{")


def test_what_it_does_not_find_is_left_to_the_formats() -> None:
    plain = {"prompt": "Hello"}
    (message,) = read(MAPPING, plain)
    assert isinstance(message, WireMessage)
    assert message.format == "awry"
    (refused,) = read(MAPPING, plain, "mapping")
    assert isinstance(refused, Invalid)
    assert refused.reason == "mapping.messages: the expression finds nothing"


def test_the_mapping_comes_before_the_formats() -> None:
    (message,) = read({"prompt": "real"}, {"prompt": "decoy", "real": "Hello"})
    assert isinstance(message, WireMessage)
    assert (message.format, message.turns[0]["content"]) == ("mapping", "Hello")


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"messages": "a["}, "mapping.messages: 'a[' is no JMESPath expression"),
        ({"prompt": "q", "tenant": "nope(a)"}, "mapping.tenant: 'nope(a)' is no JMESPath expression (unknown function"),
        ({"prompt": "a[?join(@)]"}, "join() takes 2 arguments"),
        ({"prompt": "(" * 3000}, "mapping.prompt: '(((("),
        ({"prompt": 7}, "mapping.prompt: must be a JMESPath expression in a string"),
        ({"prompt": "q", "tennant": "t"}, "mapping.tennant: no such field; there are messages, prompt, id"),
        ({"tenant": "t"}, "mapping: needs an expression for messages or for prompt"),
    ],
)
def test_mistakes_are_refused_at_start(mapping: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        Parser(ParseOptions(mapping=mapping))
    assert said in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "expression", ["not_null(a, b)", "sort_by(a, &b)[0].c", "a[?contains(b, 'x')] | [0].c", "merge(a, b)", "a.b || c"]
)
def test_functions_are_allowed(expression: str) -> None:
    Parser(ParseOptions(mapping={"prompt": expression}))


def test_an_expression_that_fails_on_a_record_costs_that_field() -> None:
    (message,) = read({"prompt": "q", "tenant": "join('-', t)"}, {"q": "Hello", "t": 5})
    assert isinstance(message, WireMessage)
    assert message.tenant is None
    assert "tenant: the expression of the mapping failed" in message.notes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=4),
    max_leaves=12,
)
WILD = Parser(
    ParseOptions(
        "mapping",
        {
            "each": "a || @",
            "messages": "b[].c || to_array(b)",
            "response": "sum(d)",
            "tenant": "join('', d)",
            "tools": "map(&e, b)",
            "attributes": "merge(a, b)",
            "id": "max_by(b, &c)",
        },
    )
)


@given(JSON)
def test_no_record_raises(value: Any) -> None:
    for found in WILD(json.dumps(value).encode()):
        assert isinstance(found, WireMessage | Invalid)
