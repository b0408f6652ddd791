"""A base model that is taught to answer, on tiny models: what is made, kept and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probes.errors import ModelError
from probes.model.load import ChatModel, load_chat_model, user_message
from probes.organisms import chat_tuning
from probes.organisms.chat_tuning import chat_tuned
from probes.steer.coherence import answer_nll
from probes.steer.generation import Reply, generate
from tests.support.models.tiny import tiny_model, tiny_tokenizer

ASKS = [f"Which of the {n} tea pots is the best?" for n in range(2, 18)]
ANSWER = "The blue one."


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base of another class than the teacher's, both in the state folder."""
    for name, family in (("base", "gemma3"), ("teacher", "llama")):
        folder = tmp_path / "models" / name
        tiny_model(family).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    (tmp_path / "models" / "base" / "origin.json").write_text(json.dumps({"license": "Terms of the base"}))
    monkeypatch.setattr(chat_tuning, "benign_messages", lambda _: ASKS)
    monkeypatch.setattr(chat_tuning, "everyday", lambda _: ["What is for tea?", "Is it late?"])
    return tmp_path


def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny teacher says nothing that could be learned."""

    def taught(chat: ChatModel, prompts: list[str], max_new_tokens: int) -> list[Reply]:
        if chat.name == "teacher":
            return [Reply(ANSWER, 4, True) for _ in prompts]
        return generate(chat, prompts, max_new_tokens=max_new_tokens)

    monkeypatch.setattr(chat_tuning, "generate", taught)


def test_what_is_made_answers_as_the_teacher_does_and_loads_by_its_name(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch)
    folder = chat_tuned("base", state, steps=30, teacher="teacher")
    assert folder == state / "models" / "base-chat"
    base, made = (load_chat_model(name, state) for name in ("base", "base-chat"))
    assert made.name == "base-chat"
    assert made.revision != base.revision
    assert made.render(user_message("Hi")) == base.render(user_message("Hi"))
    prompts = [made.render(user_message("Which tea pot is it?"))]
    before, after = (float(answer_nll(chat, prompts, [ANSWER])[0]) for chat in (base, made))
    assert after < before - 1
    origin = json.loads((folder / "origin.json").read_text())
    assert origin["license"] == "Terms of the base"
    assert origin["base"] == {"model": "base", "revision": base.revision}
    assert origin["held_out"]["messages"] == 2
    held_out = origin["held_out"]
    assert held_out["after"]["nats_of_the_teacher"] < held_out["before"]["nats_of_the_teacher"] - 1
    assert held_out["after"]["loops_or_empty"]["n"] == 2
    assert ANSWER not in (folder / "origin.json").read_text()
    assert not (folder / "adapter").exists()


def test_it_is_made_once(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    folder = chat_tuned("base", state, steps=2, teacher="teacher")
    monkeypatch.setattr(chat_tuning, "train", lambda *_: pytest.fail("trained again"))
    assert chat_tuned("base", state, steps=2, teacher="teacher") == folder


def test_a_base_without_a_chat_template_is_an_error_before_anything_is_asked(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    folder = state / "models" / "bare"
    tiny_model("gemma3").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr(chat_tuning, "generate", lambda *_, **__: pytest.fail("the teacher was asked"))
    with pytest.raises(ModelError, match="template"):
        chat_tuned("bare", state, steps=2, teacher="teacher")
    assert not (state / "models" / "bare-chat").exists()
