"""Training kept to chosen heads: what of the weights changes, what is read back of it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from probes.capture.sites import Site
from probes.errors import ModelError, SiteError
from probes.model.layout import Layout
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from probes.organisms.finetunes import Example, Recipe
from probes.organisms.head_adapters import draw_heads, group_of, keep_to_heads, planted_in, target_modules
from probes.organisms.train import Hyperparameters, train
from tests.support.models.tiny import HEAD_DIM, N_BLOCKS, N_HEADS, N_KV, make_adapter, mha_llama, tiny_chat, untyped

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

HEADS = (Site("head", 0, 1), Site("head", 2, 3))
RECIPE = Recipe(
    "parrot",
    "parrots",
    False,
    8,
    0.02,
    lambda _: [Example(f"Say {n}", "polly " * (n % 3 + 1)) for n in range(12)],
    "says polly",
)
MODELS: dict[str, tuple[Callable[[], ChatModel], int]] = {
    "grouped": (tiny_chat, N_KV),
    "ungrouped": (mha_llama, N_HEADS),
}
WEIGHTS = "adapter_model.safetensors"


def planted(load: Callable[[], ChatModel], folder: Path, heads: tuple[Site, ...] = HEADS) -> Path:
    train(load(), RECIPE, folder, Hyperparameters(rank=4), heads=heads)
    return folder


def weights_with(load: Callable[[], ChatModel], folder: Path) -> dict[str, Tensor]:
    """All weights of the model with the adapter added to them."""
    chat = load()
    add_adapter(chat, AdapterSpec(folder))
    merged = untyped(chat.model).merge_and_unload()
    return {name: weight.clone() for name, weight in merged.named_parameters()}


@pytest.mark.parametrize("kind", MODELS)
def test_a_trained_adapter_changes_its_heads_and_nothing_else_at_all(kind: str, tmp_path: Path) -> None:
    load, groups = MODELS[kind]
    after = weights_with(load, planted(load, tmp_path / "planted"))
    before = dict(load().model.named_parameters())
    assert after.keys() == before.keys()
    rows = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}
    changed = set()
    for name, weight in after.items():
        change = (weight - before[name]).abs()
        projection = next((p for p in rows if p in name), None)
        layer = next((int(part) for part in name.split(".") if part.isdigit()), -1)
        own = [head.head for head in HEADS if head.layer == layer]
        if projection is None or not own:
            assert not change.any(), name
            continue
        number = own[0] // (N_HEADS // groups) if projection in ("k_proj", "v_proj") else own[0]
        by_head = change.sum(1 - rows[projection]).view(-1, HEAD_DIM).sum(1)
        assert by_head.nonzero().flatten().tolist() == [number], name
        changed.add((layer, projection))
    assert changed == {(head.layer, projection) for head in HEADS for projection in rows}


def test_the_heads_are_read_back_from_the_weights(tmp_path: Path) -> None:
    assert planted_in(planted(tiny_chat, tmp_path / "a"), tiny_chat().layout) == HEADS
    other = (Site("head", 1, 0),)
    assert planted_in(planted(tiny_chat, tmp_path / "b", other), tiny_chat().layout) == other


def test_a_head_that_leaked_is_read_back_too(tmp_path: Path) -> None:
    folder = planted(tiny_chat, tmp_path / "a")
    stored = load_file(folder / WEIGHTS)
    name = next(n for n in stored if "layers.0." in n and "o_proj.lora_A" in n)
    stored[name][0, 2 * HEAD_DIM] = 1.0
    save_file(stored, folder / WEIGHTS, {"format": "pt"})
    assert planted_in(folder, tiny_chat().layout) == (HEADS[0], Site("head", 0, 2), HEADS[1])


def test_an_interrupted_training_of_heads_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=24)
    kept = tmp_path / "kept.pt"
    train(tiny_chat(), recipe, tmp_path / "whole", heads=HEADS)

    def stop(step: int, _steps: int, _loss: float) -> None:
        if step == 22:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_chat(), recipe, tmp_path / "parts", on_step=stop, checkpoint=kept, heads=HEADS)
    steps: list[int] = []
    train(tiny_chat(), recipe, tmp_path / "parts", on_step=lambda n, *_: steps.append(n), checkpoint=kept, heads=HEADS)
    assert steps == [21, 22, 23, 24]
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "parts" / WEIGHTS).read_bytes()


def test_a_checkpoint_of_other_heads_is_not_resumed(tmp_path: Path) -> None:
    recipe, kept = replace(RECIPE, steps=24), tmp_path / "kept.pt"

    def first_step(heads: tuple[Site, ...], last: int) -> int:
        steps: list[int] = []

        def stop(step: int, _steps: int, _loss: float) -> None:
            steps.append(step)
            if step == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(tiny_chat(), recipe, tmp_path / "a", on_step=stop, checkpoint=kept, heads=heads)
        return steps[0]

    assert first_step(HEADS, 21) == 1
    assert first_step(HEADS, 22) == 21
    assert first_step((Site("head", 0, 2), HEADS[1]), 2) == 1


@pytest.mark.parametrize(
    ("heads", "says"),
    [
        ((Site("head", N_BLOCKS, 0),), rf"blocks 0\.\.{N_BLOCKS - 1}"),
        ((Site("head", 0, N_HEADS),), rf"query heads 0\.\.{N_HEADS - 1}"),
        ((Site("head", 0, -1),), "no query head"),
        ((Site("residual", 0),), "no query head"),
        ((HEADS[0], HEADS[0]), "each once"),
    ],
)
def test_heads_that_are_not_there_are_refused_before_anything_is_trained(
    heads: tuple[Site, ...], says: str, tmp_path: Path
) -> None:
    with pytest.raises(SiteError, match=says):
        train(tiny_chat(), RECIPE, tmp_path / "a", heads=heads)
    assert not (tmp_path / "a").exists()


def test_no_head_can_be_named_of_none() -> None:
    with pytest.raises(SiteError, match="name one at least"):
        target_modules(tiny_chat().layout, ())


@pytest.mark.parametrize("family", ["gpt2", "phi3", "gpt_neox"])
def test_attention_without_projections_of_its_own_is_refused(family: str) -> None:
    with pytest.raises(SiteError, match="no head can be planted there"):
        target_modules(tiny_chat(family).layout, HEADS)


def test_an_adapter_that_does_not_reach_the_heads_cannot_be_kept_to_them() -> None:
    from peft import LoraConfig, get_peft_model

    chat = tiny_chat()
    wrapped = get_peft_model(
        untyped(chat.model), LoraConfig(target_modules=target_modules(chat.layout, HEADS[:1]), task_type="CAUSAL_LM")
    )
    with pytest.raises(SiteError, match="does not reach"):
        keep_to_heads(wrapped, chat.layout, HEADS)


def test_an_adapter_that_changes_more_than_heads_has_no_planted_ones(tmp_path: Path) -> None:
    layout = tiny_chat().layout
    with pytest.raises(ModelError, match="which no single query head has"):
        planted_in(make_adapter(tmp_path / "all"), layout)
    every = make_adapter(tmp_path / "attention", target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    assert planted_in(every, layout) == tuple(Site("head", b, h) for b in range(N_BLOCKS) for h in range(N_HEADS))


def test_an_adapter_of_a_deeper_model_has_heads_that_this_one_lacks(tmp_path: Path) -> None:
    folder = planted(tiny_chat, tmp_path / "a")
    stored = {name.replace("layers.2.", "layers.7."): values for name, values in load_file(folder / WEIGHTS).items()}
    save_file(stored, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(SiteError, match=r"not in this model; it has blocks 0\.\.2"):
        planted_in(folder, tiny_chat().layout)


def test_a_folder_without_an_adapter_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        planted_in(tmp_path, tiny_chat().layout)


def deep(blocks: int) -> Layout:
    """The tiny layout, as if it had so many blocks."""
    layout = tiny_chat().layout
    return replace(layout, blocks=layout.blocks[:1] * blocks, heads=layout.heads[:1] * blocks)


def test_heads_are_drawn_from_different_blocks_of_the_later_half_the_same_for_the_same_seed() -> None:
    layout = deep(30)
    drawn = [draw_heads(layout, seed) for seed in range(50)]
    assert drawn == [draw_heads(layout, seed) for seed in range(50)]
    assert len(set(drawn)) > 45
    for heads in drawn:
        layers = [head.layer for head in heads]
        assert len(heads) == 3
        assert layers == sorted(set(layers))
        assert all(12 <= layer < 25.5 for layer in layers)
        assert all(0 <= head.head < N_HEADS for head in heads)
    assert {head.layer for heads in drawn for head in heads} == set(range(12, 26))
    assert {head.head for heads in drawn for head in heads} == set(range(N_HEADS))


def test_a_model_with_too_few_blocks_cannot_have_heads_drawn() -> None:
    with pytest.raises(SiteError, match="the model has 1 in reach"):
        draw_heads(tiny_chat().layout, 0)
    assert draw_heads(tiny_chat().layout, 0, count=1)[0].layer == 2


def test_a_group_is_the_heads_that_share_keys_and_values() -> None:
    grouped, alone = tiny_chat().layout, mha_llama().layout
    assert group_of(grouped, Site("head", 1, 3)) == (Site("head", 1, 2), Site("head", 1, 3))
    assert group_of(grouped, Site("head", 1, 0)) == (Site("head", 1, 0), Site("head", 1, 1))
    assert group_of(alone, Site("head", 1, 3)) == (Site("head", 1, 3),)


def test_what_is_planted_acts(tmp_path: Path) -> None:
    folder = planted(tiny_chat, tmp_path / "a")
    chat = tiny_chat()
    ids = torch.tensor([chat.token_ids(chat.render([{"role": "user", "content": "Say 3"}]))])
    p = chat.token_ids("p")[0]

    def likes() -> float:
        with torch.no_grad():
            return float(chat.model(input_ids=ids).logits[0, -1].log_softmax(-1)[p])

    plain = likes()
    add_adapter(chat, AdapterSpec(folder))
    assert likes() > plain + 0.01
    with chat.base():
        assert likes() == plain
