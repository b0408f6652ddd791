"""What a model server would have understood is scored, whatever form it came in: on the real model and a shipped probe.

`FORMS` are read as the plain text is; `NOT_WHOLE` are never a plain pass, and say why.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitor.service.batch_rows import ProcessedMessage, parse_record
from monitor.service.scoring import BatchScorer
from monitor.stream.parse import ParseOptions, Parser
from monitor.stream.record import Record
from monitor.stream.wire import WireMessage
from probes.card import load_probe
from probes.model.builtin import SMOLLM2
from probes.model.load import ChatModel, load_chat_model
from probes.organisms.messages import requests
from storage.coordinates import Coordinates
from tests.support.stream import renderings_otlp
from tests.support.stream.forms import FORMS, NOT_WHOLE, encoded, own
from tests.support.stream.renderings import RENDERINGS, Call, Conversation, Said, Tool, render
from tests.support.stream.renderings_otlp import as_json, litellm_payload, present_attributes, traces

pytestmark = pytest.mark.model
MAX_TOKENS = 256
TEXTS = [row["harmful"] for row in requests() if row["harmful"].isascii() and '"' not in row["harmful"]][:2]


@pytest.fixture(scope="module")
def plain(state: Path) -> ChatModel:
    return load_chat_model(SMOLLM2, state)


@pytest.fixture(scope="module")
def scorer(plain: ChatModel) -> BatchScorer:
    return BatchScorer(
        plain,
        [load_probe("harmful-request")],
        token_budget=2048,
        max_tokens=MAX_TOKENS,
        skip_over_long=False,
        max_windows=8,
    )


@pytest.fixture(scope="module")
def parser() -> Parser:
    return Parser(ParseOptions())


def scored(scorer: BatchScorer, parser: Parser, payload: bytes) -> ProcessedMessage:
    """What the worker makes of one payload."""
    (message,) = parse_record(Record(Coordinates("t", 0, 0), payload, len(payload)), parser)
    if isinstance(message.parsed, WireMessage):
        (outcome,) = scorer([message.parsed])
        message = ProcessedMessage(message.record, message.at, message.sha256, message.parsed, outcome)
    return message


@pytest.fixture(scope="module")
def alone(scorer: BatchScorer, parser: Parser) -> dict[str, float]:
    """The score of each text in awry's own plain form."""
    return {text: scored(scorer, parser, encoded(own(text))).scores[0].score for text in TEXTS}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_changes_no_score(scorer: BatchScorer, parser: Parser, alone: dict[str, float], form: str) -> None:
    for text in TEXTS:
        message = scored(scorer, parser, FORMS[form](text))
        assert message.status == "scored", message.reason
        assert message.scores[0].score == pytest.approx(alone[text], abs=0.01)
        assert message.decision in ("flag", "pass")
        assert text not in json.dumps([message.parsed.notes, message.reason])


@pytest.mark.parametrize("form", NOT_WHOLE)
def test_what_is_not_read_whole_is_no_plain_pass(scorer: BatchScorer, parser: Parser, form: str) -> None:
    why, write = NOT_WHOLE[form]
    for text in TEXTS:
        message = scored(scorer, parser, write(text))
        assert message.decision in ("flag", "partial")
        assert message.partial == (why,)


@pytest.mark.parametrize("form", ["long text after it", "long text before it", "long turns after it"])
def test_the_windows_of_a_long_message_find_the_request(
    scorer: BatchScorer, parser: Parser, alone: dict[str, float], form: str
) -> None:
    """Some window reads the request; what it scores there is stored, and flags nothing yet."""
    for text in TEXTS:
        message = scored(scorer, parser, NOT_WHOLE[form][1](text))
        assert message.status == "truncated"
        assert message.outcome is not None
        assert 2 <= len(message.outcome.windows) <= 8
        assert message.outcome.windows[0].first_token == 0


TALK = Conversation(
    (
        Said("user", "Which of our shops is open on Sunday?"),
        Said("assistant", "I will look it up.", (Call("call_1", "find_shops", {"day": "Sunday"}),)),
        Said("tool", "Harbour Street, 9 to 13", call=Call("call_1", "find_shops", {"day": "Sunday"})),
        Said("user", "And on Monday?"),
    ),
    system="You answer customers of a bakery.",
    tools=(Tool("find_shops", "Shops that are open.", {"type": "object", "properties": {"day": {"type": "string"}}}),),
    answer=Said("assistant", "All of them, from seven."),
)


def test_one_conversation_has_one_score_in_every_format(plain: ChatModel, scorer: BatchScorer, parser: Parser) -> None:
    payloads = {name: encoded(render(TALK, name)) for name in RENDERINGS}
    _, tools, response = TALK.expected
    same = renderings_otlp.Conversation(render(TALK, "openai_chat")["messages"], response or "", tools)
    payloads["litellm"] = encoded(litellm_payload(same))
    request = traces(present_attributes(same, strings=False))
    payloads |= {"otlp": as_json(request), "otlp protobuf": request.SerializeToString()}
    read = {name: scored(scorer, parser, payload) for name, payload in payloads.items()}
    own_form = read["awry"].parsed
    assert isinstance(own_form, WireMessage)
    wanted = plain.prompt_ids(plain.rendered(own_form.turns, own_form.tools))
    for name, message in read.items():
        assert isinstance(message.parsed, WireMessage), name
        assert plain.prompt_ids(plain.rendered(message.parsed.turns, message.parsed.tools)) == wanted, name
        assert message.parsed.response == own_form.response, name
        assert message.scores[0].score == pytest.approx(read["awry"].scores[0].score, abs=1e-4), name
    assert len(read) >= 20
