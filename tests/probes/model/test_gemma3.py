"""The second real model, where `awry models get gemma3-270m` has made it; elsewhere these tests are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from probes.capture.aggregation import parse_aggregation
from probes.capture.batches import encode
from probes.capture.sites import Site, observing, site_width
from probes.directions import Direction
from probes.model.builtin import GEMMA3
from probes.model.load import ChatModel, load_chat_model
from probes.scoring import Reader, score_all
from tests.support.models.tiny import user

pytestmark = pytest.mark.gemma3


@pytest.fixture(scope="module")
def folder() -> Path:
    from monitor.settings import default_state_dir

    return default_state_dir()


@pytest.fixture(scope="module")
def chat(folder: Path) -> ChatModel:
    return load_chat_model(GEMMA3, folder, dtype="float32", device="cpu")


def reader(chat: ChatModel, site: Site, aggregation: str = "mean(prompt)") -> Reader:
    draw = np.random.default_rng(0)
    width = site_width(site, chat.layout)
    return Reader(
        (Direction(site, draw.normal(size=width), draw.normal(size=width), 1.0),), parse_aggregation(aggregation)
    )


def test_its_parts_and_its_residual_stream(chat: ChatModel) -> None:
    layout = chat.layout
    heads = layout.heads_at(0)
    assert (layout.n_blocks, heads.count, heads.kv_count, heads.width, layout.width) == (18, 4, 1, 256, 640)
    ids = torch.tensor([chat.token_ids(chat.render(user("How do I boil an egg?")))])
    seen: dict[str, torch.Tensor] = {}
    observers = {Site("residual", 7): lambda x: seen.update(mid=x), Site("final"): lambda x: seen.update(final=x)}
    with torch.inference_mode():
        with observing(layout, observers) as run:
            run(input_ids=ids)
        states = chat.model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    torch.testing.assert_close(seen["mid"], states[8])
    torch.testing.assert_close(seen["final"], states[-1], atol=1e-4, rtol=1e-4)


def test_its_chat_template_begins_once(chat: ChatModel) -> None:
    rendered = chat.rendered([{"role": "system", "content": "Be brief."}, *user("Hello")])
    assert rendered.how == "template"
    ids = chat.prompt_ids(rendered)
    assert ids.count(chat.tokenizer.bos_token_id) == 1
    assert ids[0] == chat.tokenizer.bos_token_id


def test_windows_and_batch_mates_change_no_score(chat: ChatModel) -> None:
    """Five of six blocks see 512 tokens back."""
    words = "the river runs by the old mill and over the stones "
    items = [encode(chat, user(words * n)) for n in (1, 80, 7, 55)]
    assert max(len(item.ids) for item in items) > 700
    readers = [reader(chat, Site("residual", 12)), reader(chat, Site("head", 11, 2), "last_prompt")]
    together = score_all(chat, items, readers)
    alone = np.concatenate([score_all(chat, [item], readers) for item in items])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_what_is_read_is_loaded_and_scores_alike(chat: ChatModel, folder: Path) -> None:
    site = Site("head", 6, 3)
    part = load_chat_model(GEMMA3, folder, dtype="float32", device="cpu", sites=[site])
    assert part.identity == chat.identity
    assert [any(p.is_meta for p in block.parameters()) for block in part.layout.blocks] == [False] * 7 + [True] * 11
    items = [encode(chat, user(f"What is {n} and {n}?")) for n in range(4)]
    np.testing.assert_array_equal(
        score_all(part, items, [reader(part, site)]), score_all(chat, items, [reader(chat, site)])
    )
