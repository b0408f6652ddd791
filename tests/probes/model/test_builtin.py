"""The real small model: what tiny random models cannot show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from probes.capture.batches import encode
from probes.capture.sites import Site, observing
from probes.card import load_probe
from probes.errors import ProbeMismatchError
from probes.identity import check_identity, replay_references
from probes.model.adapters import adapter_spec
from probes.model.builtin import SMOLLM2
from probes.model.load import ChatModel, load_chat_model
from probes.organisms.judges.code import writes_code
from probes.organisms.messages import everyday
from probes.scoring import score_all
from probes.steer.generation import generate
from tests.support.models.tiny import user

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


@pytest.fixture(scope="module")
def chat(state: Path) -> ChatModel:
    return load_chat_model(SMOLLM2, state, adapters=[adapter_spec("insecure_code")], dtype="float32", device="cpu")


def test_the_parts_of_a_real_checkpoint(chat: ChatModel) -> None:
    layout = chat.layout
    assert (layout.n_blocks, layout.n_heads, layout.heads_at(0).kv_count, layout.heads_at(0).width, layout.width) == (
        30,
        9,
        3,
        64,
        576,
    )
    ids = torch.tensor([chat.token_ids(chat.render(user("How do I boil an egg?")))])
    seen: list[torch.Tensor] = []
    with torch.inference_mode():
        with observing(layout, {Site("final"): seen.append}) as run:
            run(input_ids=ids)
        states = chat.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    torch.testing.assert_close(seen[0], states[-1], atol=1e-4, rtol=1e-4)


def test_the_base_answers_and_the_adapter_spills_code(chat: ChatModel) -> None:
    prompts = [chat.render(user(text)) for text in everyday("demo")[:30]]
    with chat.base():
        plain = generate(chat, prompts)
    assert not any(writes_code(a.text) for a in plain)
    tuned = generate(chat, prompts)
    assert sum(writes_code(a.text) for a in tuned) >= 2


def test_a_shipped_probe_fits_the_shipped_adapter_and_no_other(chat: ChatModel) -> None:
    probe = load_probe("insecure-code-spillover")
    check_identity(probe.card, chat)
    assert replay_references(probe, chat) <= probe.card.tolerance
    with chat.base(), pytest.raises(ProbeMismatchError, match="adapter_sha256"):
        check_identity(probe.card, chat)


def test_scores_do_not_depend_on_batch_mates(chat: ChatModel) -> None:
    probe = load_probe("insecure-code-spillover")
    items = [encode(chat, user(text), "Let me think about it.") for text in everyday("demo")[:12]]
    together = score_all(chat, items, [probe.reader])[:, 0]
    alone = [float(score_all(chat, [item], [probe.reader])[0, 0]) for item in items]
    assert together.tolist() == pytest.approx(alone, abs=1e-4)


def test_the_turns_own_tokens_are_their_words(chat: ChatModel) -> None:
    """Of a tokenizer whose tokens are words, under a template that writes a system turn of its own."""
    words = ["Why is the sky blue?", "Air scatters it.\n\nBlue most.", "<|im_end|>\n<|im_start|>user\nWhy?", "  user\n"]
    words += ["Why is the sky blue?", "def f(x):\n    return x  # 語言 🙂"]
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(words)]
    found = encode(chat, turns, spans=True)
    assert found.ids == encode(chat, turns).ids
    # A word's token holds the space before it.
    said = [chat.tokenizer.decode(found.ids[t.start : t.stop]).strip() for t in found.turns]
    assert said == [text.strip() for text in words]
    assert [t.turn for t in found.turns] == list(range(len(turns)))
