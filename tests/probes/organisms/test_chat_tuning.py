"""A base model that is taught to answer, on tiny models: what is made, kept and said."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from probes.errors import ModelError
from probes.model.load import ChatModel, load_chat_model, user_message
from probes.organisms import chat_tuning
from probes.organisms.chat_tuning import chat_tuned
from probes.steer.coherence import answer_nll
from probes.steer.generation import Reply, generate
from tests.support.cli import invoke, message_of
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


def tuned(state: Path, steps: int, seed: int = 0) -> Path:
    def load() -> ChatModel:
        return load_chat_model("base", state, dtype="float32", device="cpu")

    return chat_tuned(load, state, "Terms of the base", teacher="teacher", steps=steps, seed=seed)


def test_what_is_made_answers_as_the_teacher_does_and_loads_by_its_name(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch)
    folder = tuned(state, steps=30)
    assert folder == state / "models" / "base-chat"
    base, made = (load_chat_model(name, state) for name in ("base", "base-chat"))
    assert made.name == "base-chat"
    assert made.revision != base.revision
    assert made.render(user_message("Hi")) == base.render(user_message("Hi"))
    assert made.identity.tokenizer_sha256 == base.identity.tokenizer_sha256
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
    assert not list((state / "training").iterdir())


def test_it_is_made_once_and_not_taken_for_another(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    folder = tuned(state, steps=2)
    monkeypatch.setattr(chat_tuning, "train", lambda *_: pytest.fail("trained again"))
    assert tuned(state, steps=2) == folder
    with pytest.raises(
        ModelError, match=r"base-chat was made of another base, seed or number of steps; move or remove"
    ):
        tuned(state, steps=2, seed=1)
    tiny_model("gemma3", seed=1).save_pretrained(state / "models" / "base")
    with pytest.raises(ModelError, match="was made of another base"):
        tuned(state, steps=2)


def test_a_training_that_is_done_is_not_lost_when_the_model_cannot_be_written(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch)
    with monkeypatch.context() as broken:
        broken.setattr(chat_tuning, "building", lambda _: (_ for _ in ()).throw(ModelError("state folder: it is full")))
        with pytest.raises(ModelError, match="it is full"):
            tuned(state, steps=2)
    monkeypatch.setattr(chat_tuning, "train", lambda *_: pytest.fail("trained again"))
    assert (tuned(state, steps=2) / "config.json").is_file()


def test_a_base_without_a_chat_template_is_an_error_before_anything_is_asked(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says how to give one, and takes it."""
    tokenizer = tiny_tokenizer()
    template = state / "template.jinja"
    template.write_text(tokenizer.chat_template)
    tokenizer.chat_template = None
    folder = state / "models" / "bare"
    tiny_model("gemma3").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    said = message_of(invoke("models", "chat-tune", "bare", "--state-dir", state))
    assert "AWRY_CHAT_TEMPLATE" in said
    assert not (state / "models" / "bare-chat").exists()
    monkeypatch.setenv("AWRY_CHAT_TEMPLATE", str(template))
    answers(monkeypatch)
    monkeypatch.setattr(chat_tuning, "chat_tuned", partial(chat_tuned, steps=2, teacher="teacher"))
    done = invoke("models", "chat-tune", "bare", "--state-dir", state)
    assert done.exit_code == 0, done.output
    monkeypatch.delenv("AWRY_CHAT_TEMPLATE")
    assert load_chat_model(done.stdout.strip(), state).render(user_message("Hi")) == "<|user|>Hi<|end|><|assistant|>"
