from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from probes.capture.sites import Site
from probes.directions import Direction
from probes.errors import SteeringError
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from probes.steer.generation import Reply, generate
from probes.steer.steering import Intervention, Positions, steering
from tests.support.models.tiny import FAMILIES, MULTIMODAL, make_adapter, shared_chat, tiny_chat, untyped, user

TEXTS = [
    "Hi",
    "What is the capital of France?",
    "x" * 70,
    "Count to ten.",
    "Why?",
    "A somewhat longer question, please.",
]


def prompts_of(chat: ChatModel) -> list[str]:
    return [chat.render(user(text)) for text in TEXTS]


def by_hand(chat: ChatModel, prompt: str, limit: int, ends: set[int]) -> tuple[list[int], bool]:
    """Greedy, one prompt, no cache, no padding: (kept token ids, whether it ended by itself)."""
    ids = chat.token_ids(prompt)
    made: list[int] = []
    while len(made) < limit:
        with torch.no_grad():
            token = int(chat.model(input_ids=torch.tensor([ids + made]), use_cache=False).logits[0, -1].argmax())
        if token in ends:
            return made, True
        made.append(token)
    return made, False


@pytest.mark.parametrize("family", [*FAMILIES, *MULTIMODAL])
def test_batched_answers_are_those_of_one_prompt_by_hand(family: str) -> None:
    chat = shared_chat(family)
    prompts = prompts_of(chat)[:4]
    got = generate(chat, prompts, max_new_tokens=8, batch_size=3)
    for prompt, one in zip(prompts, got, strict=True):
        made, finished = by_hand(chat, prompt, 8, {257})
        assert one == Reply(chat.tokenizer.decode(made, skip_special_tokens=True).strip(), len(made), finished)


def test_answers_come_in_the_order_of_the_prompts_and_progress_is_told() -> None:
    chat = shared_chat("llama")
    prompts = prompts_of(chat)
    told: list[int] = []
    together = generate(chat, prompts, max_new_tokens=5, batch_size=4, on_done=told.append)
    assert told == [4, 2]
    assert together == [generate(chat, [p], max_new_tokens=5)[0] for p in prompts]
    assert len({a.text for a in together}) > 1
    assert generate(chat, []) == []


def ending(chat: ChatModel, token: int | list[int]) -> ChatModel:
    untyped(chat.model).generation_config.eos_token_id = token
    return chat


def test_an_answer_stops_before_its_end_token() -> None:
    chat = tiny_chat("llama")
    prompt = prompts_of(chat)[0]
    made, _ = by_hand(chat, prompt, 6, {257})
    end = next(t for i, t in enumerate(made) if i and t not in made[:i])
    at = made.index(end)
    assert generate(chat, [prompt], max_new_tokens=6)[0].finished is False
    one = generate(ending(chat, [end, 260]), [prompt], max_new_tokens=6)[0]
    assert (one.tokens, one.finished) == (at, True)
    assert one.text == chat.tokenizer.decode(made[:at], skip_special_tokens=True).strip()
    # Reaching the limit exactly is not an end.
    assert generate(chat, [prompt], max_new_tokens=at)[0].finished is False


def test_a_row_that_ended_early_keeps_what_it_had_while_its_mates_go_on() -> None:
    chat = tiny_chat("llama")
    prompts = prompts_of(chat)
    free = [by_hand(chat, p, 10, {257})[0] for p in prompts]
    end = free[0][3]
    ending(chat, end)
    got = generate(chat, prompts, max_new_tokens=10)
    assert {a.finished for a in got} == {True, False}
    for prompt, one in zip(prompts, got, strict=True):
        made, finished = by_hand(chat, prompt, 10, {257, end})
        assert (one.tokens, one.finished) == (len(made), finished)


def test_padding_that_is_also_the_end_token_is_told_apart_by_the_mask() -> None:
    plain, same = tiny_chat("llama"), tiny_chat("llama")
    same.tokenizer.pad_token = "<|end|>"
    assert same.tokenizer.pad_token_id == same.tokenizer.eos_token_id
    prompts = prompts_of(plain)
    assert generate(same, prompts, max_new_tokens=6) == generate(plain, prompts, max_new_tokens=6)


def strong(positions: Positions) -> Intervention:
    rng = np.random.default_rng(0)
    return Intervention(
        Direction(Site("residual", 1), 4 * rng.standard_normal(32), np.zeros(32), 1.0), "subtract", 1.0, positions
    )


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "mistral3_vision"])
def test_steered_batches_are_told_where_their_prompts_end(family: str, positions: Positions) -> None:
    chat = shared_chat(family)
    prompts = prompts_of(chat)
    plain = generate(chat, prompts, max_new_tokens=6)
    with steering(chat, [strong(positions)]) as state:
        together = generate(chat, prompts, max_new_tokens=6, batch_size=4, steered=state)
        alone = [generate(chat, [p], max_new_tokens=6, steered=state)[0] for p in prompts]
        for prompt, one in zip(prompts, together, strict=True):
            state.begin(len(chat.token_ids(prompt)))
            assert one.tokens == len(made := by_hand(chat, prompt, 6, {257})[0])
            assert one.text == chat.tokenizer.decode(made, skip_special_tokens=True).strip()
    assert together == alone
    assert together != plain
    assert 0 < state.relative_change < 100
    assert generate(chat, prompts, max_new_tokens=6) == plain


def test_steering_the_last_position_without_handing_over_the_state_is_an_error() -> None:
    chat = shared_chat("llama")
    with pytest.raises(SteeringError, match="begin"), steering(chat, [strong("last")]):
        generate(chat, prompts_of(chat), max_new_tokens=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_lower_precisions_generate(dtype: torch.dtype) -> None:
    chat = tiny_chat("llama", dtype=dtype)
    assert all(a.tokens == 4 or a.finished for a in generate(chat, prompts_of(chat), max_new_tokens=4))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("with_adapter", [False, True])
@pytest.mark.parametrize(
    "asked",
    [
        {"repetition_penalty": 5.0},
        {"num_beams": 3},
        {"no_repeat_ngram_size": 1},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"prompt_lookup_num_tokens": 3},
        {"do_sample": True, "temperature": 50.0},
        {"suppress_tokens": list(range(100))},
        {"min_new_tokens": 8, "forced_eos_token_id": 65},
        {"guidance_scale": 3.0},
        {"max_length": 1, "max_time": 0.0},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_greedy_is_greedy_whatever_the_checkpoint_asks_for(
    asked: dict[str, object], with_adapter: bool, tmp_path: Path
) -> None:
    chat = tiny_chat("llama")
    for name, value in asked.items():
        setattr(untyped(chat.model).generation_config, name, value)
    if with_adapter:
        add_adapter(chat, AdapterSpec(make_adapter(tmp_path / "adapter"), 1.0))
    own = untyped(chat.model).generation_config
    prompt = prompts_of(chat)[1]
    made, finished = by_hand(chat, prompt, 12, {257})
    got = generate(chat, [prompt], max_new_tokens=12)[0]
    assert got == Reply(chat.tokenizer.decode(made, skip_special_tokens=True).strip(), len(made), finished)
    assert untyped(chat.model).generation_config is own
