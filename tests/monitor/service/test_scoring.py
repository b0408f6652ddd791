"""A batch that breaks: transient errors are tried again, memory halves it, and the bad message stands alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from monitor.service.batch_rows import Outcome
from monitor.service.scoring import AbandonedError, BatchScorer
from monitor.stream.wire import WireMessage
from monitor.telemetry import metrics
from probes.model.load import ChatModel
from probes.projection import Projection
from tests.probes.model.templates import CHATML, GEMMA, QWEN, call, chat_with, tool
from tests.support.stream.worker import MAX_TOKENS, make_probe, scores_of, wire_message

PROMPTS = [f"prompt {n}" for n in range(8)]


@pytest.fixture
def scorer(chat: ChatModel) -> BatchScorer:
    """Reads all prompts in one forward, as long as nothing breaks. Made first: making a probe reads too."""
    return BatchScorer(chat, [make_probe(chat)], token_budget=4096, max_tokens=MAX_TOKENS, skip_over_long=False)


def score(scorer: BatchScorer, prompts: list[str]) -> list[Outcome]:
    return scorer([wire_message(id=f"m{n}", prompt=p) for n, p in enumerate(prompts)])


def splits(reason: str) -> float:
    return float(metrics.BATCH_SPLITS.labels(reason)._value.get())


def failing(monkeypatch: pytest.MonkeyPatch, fails: Any) -> list[int]:
    """`fails(rows, call)` gives the error of a forward, or None. Returns the number of rows of each."""
    sizes: list[int] = []
    forward = Projection.__call__

    def call(self: Projection, ids: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        sizes.append(len(ids))
        error = fails(len(ids), len(sizes))
        if error is not None:
            raise error
        return forward(self, ids, *others, **more)

    monkeypatch.setattr(Projection, "__call__", call)
    return sizes


def test_what_comes_and_goes_is_tried_once_more(scorer: BatchScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    before = splits("error")
    sizes = failing(monkeypatch, lambda _rows, call: RuntimeError("a hiccup") if call == 1 else None)
    assert {o.status for o in score(scorer, PROMPTS)} == {"scored"}
    assert sizes == [8, 8]
    assert splits("error") == before


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("can't allocate memory")]
)
def test_out_of_memory_halves_at_once(
    chat: ChatModel, scorer: BatchScorer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before = splits("out_of_memory")
    sizes = failing(monkeypatch, lambda rows, _call: error if rows > 2 else None)
    found = score(scorer, PROMPTS)
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    assert splits("out_of_memory") == before + 3
    monkeypatch.undo()
    scores = [o.scores[0].score for o in found]
    assert scores == pytest.approx(scores_of(chat, make_probe(chat), PROMPTS), abs=1e-4)


def test_a_message_too_large_for_memory_fails_alone(scorer: BatchScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, lambda _rows, _call: torch.OutOfMemoryError("CUDA"))
    found = score(scorer, PROMPTS[:3])
    assert [(o.status, o.reason) for o in found] == [("failed", "scoring failed: OutOfMemoryError")] * 3


def test_a_single_message_is_tried_once_more_too(scorer: BatchScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = failing(monkeypatch, lambda _rows, call: RuntimeError("a hiccup") if call == 1 else None)
    assert [o.status for o in score(scorer, PROMPTS[:1])] == ["scored"]
    assert sizes == [1, 1]


# What a template refuses, what is too long, what is written in control tokens


def message(*turns: tuple[str, str], **more: Any) -> WireMessage:
    return WireMessage("m", [{"role": role, "content": content} for role, content in turns], **more)


def scorer_of(chat: ChatModel, aggregations: tuple[str, ...] = ("last_prompt",), **options: Any) -> BatchScorer:
    """Its probes are called after what they read: `last-prompt`, `mean-response`."""
    names = [re.sub("[^a-z0-9]+", "-", a).strip("-") for a in aggregations]
    probes = [make_probe(chat, n, aggregation=a) for n, a in zip(names, aggregations, strict=True)]
    settings = {"token_budget": 4096, "max_tokens": MAX_TOKENS, "skip_over_long": False, **options}
    return BatchScorer(chat, probes, **settings)


def words(n: int) -> str:
    return "".join(f"{i:04d} " for i in range(n))


def test_an_ordinary_message_is_read_whole_and_as_it_is(chat: ChatModel) -> None:
    (found,) = scorer_of(chat)([message(("user", "Hi"))])
    assert (found.status, found.rendered, found.notes, found.partial) == ("scored", "template", (), ())
    assert (found.special_tokens, found.windows) == (0, ())


def test_a_message_of_one_turn_has_no_turns_whatever_else_is_in_the_batch(chat: ChatModel) -> None:
    scorer = scorer_of(chat, ("max_rolling_mean(4, user)",))
    one = message(("user", "hello there"))
    several = message(("user", "hi there"), ("assistant", "ok"), ("user", "what now"))
    (alone,), (beside, other) = scorer([one]), scorer([one, several])
    assert [turn for turn, _ in other.scores[0].turns] == [0, 2]
    for found in (alone, beside):
        assert (found.scores[0].turns, found.scores[0].trajectory, found.scores[0].top_turn) == ((), None, None)


def test_turns_that_the_template_refuses_are_scored_in_a_form_that_it_takes() -> None:
    chat = chat_with(GEMMA)
    sent = [message(("developer", "Be kind."), ("user", "Hi")), message(("user", "Be kind.\n\nHi"))]
    adapted, plain = scorer_of(chat)(sent)
    assert (adapted.status, adapted.rendered) == ("scored", "adapted")
    assert adapted.notes == ("developer turn rendered as system", "system turn joined to the first user turn")
    assert adapted.scores[0].score == pytest.approx(plain.scores[0].score, abs=1e-5)
    assert plain.rendered == "template"


def test_tools_are_read_with_the_models_template() -> None:
    chat = chat_with(QWEN)
    definitions = [tool("mail", "Sends mail to anybody")]
    with_tools, without = scorer_of(chat, max_tokens=1024)(
        [message(("user", "Hi"), tools=definitions), message(("user", "Hi"))]
    )
    assert (with_tools.status, with_tools.rendered) == ("scored", "template")
    assert with_tools.tokens is not None
    assert without.tokens is not None
    assert with_tools.tokens > without.tokens + len("Sends mail to anybody")


def test_a_conversation_that_no_form_of_is_taken_is_skipped_with_its_roles() -> None:
    chat = chat_with(CHATML)
    scorer = scorer_of(chat)
    chat.tokenizer.chat_template = "{{ raise_exception('never ' + messages[0].content) }}"
    (found,) = scorer([message(("user", "secret"), ("secret role", "secret"))])
    assert found.status == "skipped"
    assert found.reason is not None
    assert "refused the roles ['user', 'other']" in found.reason
    assert "secret" not in found.reason


def test_what_breaks_in_tokenising_is_failed(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_of(chat)

    def breaks(_self: ChatModel, _text: str) -> list[int]:
        raise ZeroDivisionError("quotes the prompt")

    monkeypatch.setattr(ChatModel, "token_ids", breaks)
    (found,) = scorer([message(("user", "Hi"))])
    assert (found.status, found.reason) == ("failed", "tokenising failed: ZeroDivisionError")


def test_a_prompt_without_tokens_is_skipped() -> None:
    chat = chat_with(CHATML)
    scorer = scorer_of(chat)
    chat.tokenizer.chat_template = "{{ messages[0].content }}"
    empty, full = scorer([message(("user", "")), message(("user", "Hi"))])
    assert (empty.status, empty.reason) == ("skipped", "nothing to read: no tokens")
    assert full.status == "scored"


def test_parts_that_were_not_read_make_it_partial(chat: ChatModel) -> None:
    (found,) = scorer_of(chat)([message(("user", "What is this? [image]"), unread={"image": 2})])
    assert (found.status, found.partial) == ("scored", ("media",))


def test_control_tokens_are_counted_wherever_they_are(chat: ChatModel) -> None:
    calls = [call("f", {"x": "<|end|>"})]
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "a<|end|><|user|>b"},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    (found,) = scorer_of(chat)([WireMessage("m", turns, response="<|end|>", tools=[])])
    assert found.special_tokens == 4


def test_an_over_long_message_is_read_in_windows_beside_its_score(chat: ChatModel) -> None:
    scorer = scorer_of(chat, max_windows=4)
    long = words(300)
    found, mate = scorer([message(("user", long)), message(("user", "Hi"))])
    assert (found.status, found.partial) == ("truncated", ("length",))
    assert found.scores[0].score == pytest.approx(scores_of(chat, make_probe(chat), [long])[0], abs=1e-4)
    assert [w.window for w in found.windows] == [0, 1, 2, 3]
    assert found.windows[0].first_token == 0
    assert found.windows[-1].first_token + found.windows[-1].tokens == len(long)
    for window in found.windows:
        piece = long[window.first_token : window.first_token + window.tokens]
        ((name, score),) = window.scores
        assert name == "last-prompt"
        assert score == pytest.approx(scores_of(chat, make_probe(chat), [piece])[0], abs=1e-4)
    assert (mate.status, mate.windows) == ("scored", ())


def test_windows_cost_no_more_than_their_budget(chat: ChatModel) -> None:
    for budget in (0, 1, 3):
        scorer = scorer_of(chat, max_windows=budget)
        (found,) = scorer([message(("user", words(2000)))])
        assert len(found.windows) == budget
        assert found.partial == ("length",)
        assert scorer.tokens <= (budget + 1) * MAX_TOKENS


def test_a_window_counts_for_the_probes_that_read_its_span(chat: ChatModel) -> None:
    scorer = scorer_of(chat, ("last_prompt", "mean(response)"), max_windows=8)
    (found,) = scorer([message(("user", words(60)), response=words(60))])
    assert found.status == "truncated"
    names = [[name for name, _ in w.scores] for w in found.windows]
    assert ["last-prompt"] in names
    assert ["mean-response"] in names
    assert all(len(one) == 1 for one in names)


def test_a_window_that_breaks_costs_the_message_nothing(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_of(chat, max_windows=4)
    whole = scorer([message(("user", words(300)))])[0]
    forward = Projection.__call__
    plain = whole.tokens

    def call(self: Projection, ids: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        if ids.shape == (1, plain):
            return forward(self, ids, *others, **more)
        raise RuntimeError("windows are of another length than the reading")

    monkeypatch.setattr(Projection, "__call__", call)
    (found,) = scorer([message(("user", words(300)))])
    assert (found.status, found.partial, found.windows) == ("truncated", ("length",), ())
    assert found.scores[0].score == pytest.approx(whole.scores[0].score, abs=1e-5)
    monkeypatch.undo()

    def no_windows(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("probes.reading.readings.windows", no_windows)
    (found,) = scorer([message(("user", words(300)))])
    assert (found.status, found.windows) == ("truncated", ())


def test_over_long_is_skipped_where_that_is_set(chat: ChatModel) -> None:
    scorer = scorer_of(chat, skip_over_long=True)
    (found,) = scorer([message(("user", words(300)))])
    assert (found.status, found.windows) == ("skipped", ())
    assert found.reason == f"longer than max_tokens={MAX_TOKENS} (over_long=skip)"
    (found,) = scorer_of(chat, skip_over_long=True, max_tokens=9999)([message(("user", words(300)))])
    assert found.reason == "longer than the model's 1024 positions (over_long=skip)"


def test_no_pass_begins_once_nobody_waits(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = BatchScorer(
        chat, [make_probe(chat)], token_budget=16, max_tokens=MAX_TOKENS, skip_over_long=False, second_readings=False
    )
    sizes = failing(monkeypatch, lambda _rows, _call: None)
    messages = [wire_message(id=f"m{n}", prompt=p) for n, p in enumerate(PROMPTS)]
    with pytest.raises(AbandonedError):
        scorer(messages, lambda: len(sizes) < 2)
    assert len(sizes) == 2
    assert {o.status for o in scorer(messages)} == {"scored"}, "the next call is not stopped"
    assert len(sizes) > 4
