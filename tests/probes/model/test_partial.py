"""A model of which only what is read is loaded: the same bits, less memory, and an error for all that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.capture.aggregation import parse_aggregation
from probes.capture.sites import Site, parse_site, site_width
from probes.directions import Direction
from probes.errors import ModelError
from probes.model.load import AdapterSpec, ChatModel, load_chat_model
from probes.scoring import Reader, score_all
from probes.steer.generation import generate
from tests.support.models.tiny import (
    FAMILIES,
    MULTIMODAL,
    N_BLOCKS,
    blocks_of,
    make_adapter,
    tiny_model,
    tiny_tokenizer,
    token_prompts,
)

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SITES = ("residual[0]", "head[0,1]", "residual[1]", "head[1,3]", "head[2,0]", "residual[2]", "final")
ITEMS = token_prompts(5, [3, 9, 1, 30])


def saved(family: str, folder: Path) -> Path:
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path, sites: list[Site] | None, **options: Any) -> ChatModel:
    return load_chat_model(str(folder), folder.parent, dtype="float32", device="cpu", sites=sites, **options)


def scores(chat: ChatModel, site: Site) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(0)
    width = site_width(site, chat.layout)
    direction = Direction(site, random.normal(size=width), random.normal(size=width), 1.0)
    return score_all(chat, ITEMS, [Reader((direction,), parse_aggregation("mean(prompt)"))])


def in_memory(module: torch.nn.Module) -> bool:
    return not any(p.is_meta for p in module.parameters())


@pytest.mark.parametrize("family", [*FAMILIES, *MULTIMODAL])
def test_scores_are_the_same_bits_and_the_rest_is_not_in_memory(family: str, tmp_path: Path) -> None:
    folder = saved(family, tmp_path / "whole")
    whole = load(folder, None)
    assert in_memory(whole.model)
    for name in SITES:
        site = parse_site(name)
        chat = load(folder, [Site("residual", 0), site])
        np.testing.assert_array_equal(scores(chat, site), scores(whole, site), err_msg=name)
        assert chat.identity == whole.identity
        assert type(chat.model) is type(whole.model)
        read = N_BLOCKS if site.kind == "final" else site.layer + 1
        there = [in_memory(block) for block in blocks_of(family, chat.model)]
        assert there == [True] * read + [False] * (N_BLOCKS - read), name
        outside = {n for n, p in chat.model.named_parameters() if p.is_meta and "layers" not in n and ".h." not in n}
        assert all(
            not any(word in n for word in ("embed_tokens", "wte", "wpe", "language_model.norm")) for n in outside
        )


def test_the_head_and_the_image_tower_are_left_out(tmp_path: Path) -> None:
    plain = load(saved("llama", tmp_path / "plain"), [Site("final")])
    assert plain.model.get_submodule("lm_head").weight.is_meta
    vision: Any = load(saved("llava", tmp_path / "vision"), [Site("final")]).model
    assert all(p.is_meta for p in vision.model.vision_tower.parameters())
    assert in_memory(vision.model.language_model)


def test_a_head_that_shares_the_embedding_stays(tmp_path: Path) -> None:
    chat = load(saved("gpt2", tmp_path / "tied"), [Site("residual", 0)])
    model: Any = chat.model
    assert model.lm_head.weight is model.transformer.wte.weight
    assert not model.lm_head.weight.is_meta


def test_what_needs_the_rest_says_so(tmp_path: Path) -> None:
    chat = load(saved("llama", tmp_path / "m"), [Site("residual", 1)])
    with pytest.raises(ModelError, match=r"model\.layers\.2 was not loaded, since no probe reads it .* load the whole"):
        generate(chat, ["Hello"], max_new_tokens=2)
    with pytest.raises(ModelError, match=r"model\.layers\.2 was not loaded"):
        scores(chat, Site("final"))
    # A block that is there is read all the same.
    assert np.isfinite(scores(chat, Site("residual", 0))).all()


def test_an_adapter_acts_in_the_blocks_that_are_there(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path / "tiny-llama")
    spec = AdapterSpec(make_adapter(tmp_path / "adapter"), 0.7)
    whole, part = (load(folder, sites, adapters=[spec]) for sites in (None, [Site("head", 1, 2)]))
    site = Site("head", 1, 2)
    np.testing.assert_array_equal(scores(part, site), scores(whole, site))
    with part.base(), whole.base():
        plain = scores(whole, site)
        np.testing.assert_array_equal(scores(part, site), plain)
    assert not np.array_equal(plain, scores(part, site))
    for chat in (part, whole):
        chat.set_scale(0.2)
    np.testing.assert_array_equal(scores(part, site), scores(whole, site))


def test_a_sharded_checkpoint_is_read_in_part(tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    tiny_model("llama").save_pretrained(folder, max_shard_size="10KB")
    tiny_tokenizer().save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    whole, part = load(folder, None), load(folder, [Site("residual", 1)])
    np.testing.assert_array_equal(scores(part, Site("residual", 1)), scores(whole, Site("residual", 1)))
    assert part.identity == whole.identity
