from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from probes.capture.batches import Encoded, encode
from probes.capture.sites import Site
from probes.conditions import LAST_PROMPT, Condition, activations_by_condition, adapter_directions
from probes.directions import pooled_activations
from probes.errors import DirectionError
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from tests.support.models.tiny import make_adapter, tiny_chat, user

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
SITES = [Site("residual", 0), Site("residual", 2), Site("final"), Site("head", 1, 3)]
TEXTS = ["one", "two and more", "three", "a rather longer fourth message", "five"]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder = tmp_path_factory.mktemp("adapters")
    chat = tiny_chat("llama")
    for name, seed in (("first", 1), ("second", 2)):
        add_adapter(chat, AdapterSpec(make_adapter(folder / name, seed=seed), 1.0, name))
    chat.use("first")
    return chat


def items(chat: ChatModel) -> list[Encoded]:
    return [encode(chat, user(text)) for text in TEXTS]


def read(chat: ChatModel) -> NDArray[np.float32]:
    held = pooled_activations(chat, items(chat), SITES, LAST_PROMPT)
    return np.concatenate([held[s].ravel() for s in SITES])


def test_an_arm_acts_inside_and_leaves_the_model_as_it_was(chat: ChatModel) -> None:
    before = read(chat)
    seen = []
    for condition in (
        Condition(chat, "first"),
        Condition(chat, "second"),
        Condition(chat, None),
        Condition(chat, "second", 0.5),
    ):
        with condition.applied() as inside:
            assert inside.active == condition.adapter
            seen.append(read(inside))
        assert chat.active == "first"
        assert chat.adapters["second"].scale == 1.0
        np.testing.assert_allclose(read(chat), before, atol=1e-6)
    np.testing.assert_allclose(seen[0], before, atol=1e-6)
    for i, a in enumerate(seen):
        for b in seen[i + 1 :]:
            assert np.abs(a - b).max() > 0.01


def test_an_arm_that_breaks_leaves_the_model_as_it_was(chat: ChatModel) -> None:
    with pytest.raises(RuntimeError, match="inside"), Condition(chat, "second", 0.25).applied():
        raise RuntimeError("inside")
    assert (chat.active, chat.adapters["second"].scale) == ("first", 1.0)


def test_the_strength_of_an_arm_is_that_of_the_adapter(chat: ChatModel) -> None:
    with Condition(chat, "first", 0.0).applied():
        nothing = read(chat)
    with Condition(chat, None).applied():
        np.testing.assert_allclose(nothing, read(chat), atol=1e-6)
    assert Condition(chat, "first", 0.5).name == "tiny-llama + first x0.5"
    assert (Condition(chat, "first").name, Condition(chat, None).name) == ("tiny-llama + first x1", "tiny-llama")


def test_every_row_is_read_under_its_own_arm_and_keeps_its_place(chat: ChatModel) -> None:
    conditions = [
        Condition(chat, "first"),
        Condition(chat, None),
        Condition(chat, "second"),
        Condition(chat, None),
        Condition(chat, "first"),
    ]
    held = activations_by_condition(list(zip(conditions, items(chat), strict=True)), SITES)
    for i, (condition, item) in enumerate(zip(conditions, items(chat), strict=True)):
        with condition.applied():
            alone = pooled_activations(chat, [item], SITES, LAST_PROMPT)
        for site in SITES:
            np.testing.assert_allclose(held[site][i], alone[site][0], atol=1e-4)


def test_an_adapters_direction_is_the_difference_of_its_means(chat: ChatModel) -> None:
    found = adapter_directions(chat, items(chat), SITES)
    on = pooled_activations(chat, items(chat), SITES, LAST_PROMPT)
    with chat.base():
        off = pooled_activations(chat, items(chat), SITES, LAST_PROMPT)
    for site in SITES:
        np.testing.assert_allclose(found[site].vector, on[site].mean(0) - off[site].mean(0), atol=1e-4)
        np.testing.assert_allclose(found[site].centre, off[site].mean(0), atol=1e-4)


def test_without_an_adapter_there_is_no_direction() -> None:
    chat = tiny_chat("llama")
    with pytest.raises(DirectionError, match=r"residual\[0\]: zero.*Is the adapter switched on"):
        adapter_directions(chat, items(chat), SITES)
