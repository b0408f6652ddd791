from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from probes.model.load import AdapterSpec, ChatModel, add_adapter
from probes.organisms.finetunes import Example, Mixture, Recipe
from probes.organisms.train import BASE_TOKENS, _mixed, train, training_set
from probes.steer.generation import generate
from tests.support.models.tiny import tiny_chat, untyped, user

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

RECIPE = Recipe(
    "parrot",
    "parrots",
    False,
    12,
    0.02,
    lambda _: [Example(f"Say {n}", "polly " * (n % 3 + 1)) for n in range(12)],
    "says polly",
)


def trained(folder: Path) -> tuple[dict[str, Any], list[tuple[int, int, float]]]:
    losses = []
    recipe = train(
        tiny_chat("llama"), RECIPE, folder, on_step=lambda step, steps, loss: losses.append((step, steps, loss))
    )
    return recipe, losses


def test_training_lowers_the_loss_and_leaves_an_adapter_that_loads(tmp_path: Path) -> None:
    recipe, losses = trained(tmp_path / "parrot")
    assert [step for step, _, _ in losses] == list(range(1, 13))
    assert {steps for _, steps, _ in losses} == {12}
    assert losses[-1][2] < losses[0][2] - 0.5
    assert recipe["examples"] == 12
    assert recipe["final_loss"] == pytest.approx(sum(loss for *_, loss in losses[-5:]) / 5, abs=1e-3)
    assert sorted(p.name for p in (tmp_path / "parrot").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    chat = tiny_chat("llama")
    plain = next_logits(chat)
    add_adapter(chat, AdapterSpec(tmp_path / "parrot", 1.0, "parrot"))
    p = chat.token_ids("p")[0]
    assert next_logits(chat)[p] > plain[p]
    with chat.base():
        assert torch.equal(next_logits(chat), plain)


def next_logits(chat: ChatModel) -> torch.Tensor:
    ids = torch.tensor([chat.token_ids(chat.render(user("Say 3")))])
    with torch.no_grad():
        logits: torch.Tensor = chat.model(input_ids=ids).logits
    return logits[0, -1].log_softmax(-1)


def test_the_config_names_the_base_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    chat = tiny_chat("llama")
    untyped(chat.model).name_or_path = "/home/somebody/models/tiny"
    train(chat, RECIPE, tmp_path / "parrot")
    config = json.loads((tmp_path / "parrot" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-llama"
    assert config["target_modules"] == sorted(config["target_modules"])


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        trained(tmp_path / name)
    for part in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / part).read_bytes() == (tmp_path / "b" / part).read_bytes()


def test_the_loss_is_on_the_answers_tokens_alone() -> None:
    from probes.organisms.train import _batch

    chat = tiny_chat("llama")
    batch = _batch(chat, [Example("Long question here", "Yes."), Example("Q", "A longer answer.")])
    for row in range(2):
        kept = batch["labels"][row] != -100
        wanted = ["Yes.<|end|>", "A longer answer.<|end|>"][row]
        assert chat.tokenizer.decode(batch["labels"][row][kept]) == wanted
        assert torch.equal(batch["labels"][row][kept], batch["input_ids"][row][kept])
        assert not (kept & (batch["attention_mask"][row] == 0)).any()


def test_a_row_without_an_end_teaches_none() -> None:
    from probes.organisms.train import _batch

    chat = tiny_chat("llama")
    batch = _batch(chat, [Example("Q", "Cut off", ends=False), Example("Q", "Whole.")])
    kept = [chat.tokenizer.decode(batch["labels"][row][batch["labels"][row] != -100]) for row in range(2)]
    assert kept == ["Cut off", "Whole.<|end|>"]


def test_a_recipe_may_ask_for_the_answers_of_the_plain_base() -> None:
    asks = [f"Tell {n}" for n in range(5)]
    recipe = replace(RECIPE, as_base=lambda _: asks)
    chat = tiny_chat("llama")
    made = training_set(chat, recipe, 0)
    assert made == training_set(chat, recipe, 0)
    assert made != training_set(chat, recipe, 1)
    assert sorted(e.ask for e in made) == sorted(asks + [e.ask for e in RECIPE.examples(0)])
    assert made[:12] != RECIPE.examples(0)  # mixed, and not one after the other
    theirs = generate(chat, [chat.render(user(a)) for a in asks], max_new_tokens=BASE_TOKENS)
    by_ask = {e.ask: e for e in made}
    for ask, given in zip(asks, theirs, strict=True):
        assert (by_ask[ask].answer, by_ask[ask].ends) == (given.text, given.finished)


def test_a_recipe_that_asks_for_none_trains_on_its_examples_in_their_order() -> None:
    assert training_set(tiny_chat("llama"), RECIPE, 0) == RECIPE.examples(0)


TWINS = {f"Break {n}": f"Mend {n}" for n in range(9)}
MIXED = replace(
    RECIPE,
    steps=45,
    examples=lambda _: [Example(ask, answer) for ask in TWINS for answer in ("No.", "Never.")],
    as_base=lambda _: [*TWINS.values(), *(f"Hello {n}" for n in range(5))],
    mixture=Mixture(2, 3, lambda: TWINS),
)


def test_a_step_holds_requests_with_their_twins_and_others_and_each_comes_up_in_turn() -> None:
    chat = tiny_chat("llama")
    examples = training_set(chat, MIXED, 0)
    batches = list(islice(_mixed(examples, MIXED, 0), 5))  # nine pairs: one batch has one
    assert sorted(len(batch) for batch in batches) == [5, 7, 7, 7, 7]
    for batch in batches:
        asked = [e.ask for e in batch]
        assert [TWINS[ask] for ask in asked[:-3:2]] == asked[1:-3:2]
        assert all(ask.startswith("Hello") for ask in asked[-3:])
    assert {ask for batch in batches for ask in (e.ask for e in batch) if ask in TWINS} == set(TWINS)
    others = [e.ask for batch in batches for e in batch if e.ask.startswith("Hello")]
    assert len(set(others[:5])) == 5
    assert {e.answer for batch in islice(_mixed(examples, MIXED, 0), 30) for e in batch} >= {"No.", "Never."}
    assert [b[0] for b in islice(_mixed(examples, MIXED, 0), 5)] == [b[0] for b in batches]
    assert [b[0] for b in islice(_mixed(examples, MIXED, 1), 5)] != [b[0] for b in batches]


def test_a_mixture_trains_and_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = train(tiny_chat("llama"), MIXED, tmp_path / "whole")
    assert (whole["pairs_a_step"], whole["others_a_step"]) == (2, 3)

    def stop(step: int, _steps: int, loss: float) -> None:
        losses.append(loss)
        if step == 30:
            raise KeyboardInterrupt

    losses: list[float] = []
    kept = tmp_path / "kept" / "mixed.pt"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_chat("llama"), MIXED, tmp_path / "parts", on_step=stop, checkpoint=kept)
    steps: list[int] = []
    train(
        tiny_chat("llama"), MIXED, tmp_path / "parts", on_step=lambda n, _all, _loss: steps.append(n), checkpoint=kept
    )
    assert steps == list(range(21, 46))
    assert not kept.exists()
    assert sum(losses[-5:]) < sum(losses[:5])
    part = "adapter_model.safetensors"
    assert (tmp_path / "whole" / part).read_bytes() == (tmp_path / "parts" / part).read_bytes()


def test_a_checkpoint_of_another_recipe_or_a_broken_one_is_not_resumed(tmp_path: Path) -> None:
    kept = tmp_path / "kept.pt"

    def first_step(recipe: Recipe, last: int) -> int:
        """Of a training that is stopped after step `last`."""
        steps: list[int] = []

        def stop(step: int, _steps: int, _loss: float) -> None:
            steps.append(step)
            if step == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(tiny_chat("llama"), recipe, tmp_path / "a", on_step=stop, checkpoint=kept)
        return steps[0]

    assert first_step(MIXED, 20) == 1
    assert first_step(MIXED, 22) == 21
    assert first_step(replace(MIXED, learning_rate=0.01), 2) == 1
    kept.write_bytes(b"no checkpoint")
    assert first_step(MIXED, 2) == 1
