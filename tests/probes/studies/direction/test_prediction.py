from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from probes.capture.sites import Site
from probes.conditions import Condition
from probes.directions import Direction
from probes.model.load import ChatModel
from probes.studies.direction import prediction as module
from probes.studies.direction.prediction import prediction
from probes.studies.direction.separation import Directions
from tests.support.models.planted_study import WIDTH, messages, planted_chat

SITES = [Site("residual", 0), Site("residual", 1)]
N_FIT, N_TEST = 80, 80
COUNTS = {"permutations": 20, "random_directions": 20, "seed": 0}


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return planted_chat(0)


def study(
    chat: ChatModel,
    monkeypatch: pytest.MonkeyPatch,
    gap: float,
    seed: int = 0,
    labels: NDArray[np.bool_] | None = None,
    control: bool = False,
    axis: int = 0,
    texts: list[str] | None = None,
) -> dict[str, Any]:
    """Activations of our own making: at site 1 what shows the behaviour is `gap` further along an axis."""
    rng = np.random.default_rng(seed)
    shown = rng.random(N_FIT + N_TEST) < 0.4 if labels is None else np.asarray(labels)
    held = {site: rng.standard_normal((len(shown), WIDTH)).astype(np.float32) for site in SITES}
    held[SITES[1]][shown, 0] += gap
    monkeypatch.setattr(module, "activations_by_condition", lambda *_: held)
    vector = np.zeros(WIDTH)
    vector[axis] = 2.0
    own = {site: Direction(site, vector, np.zeros(WIDTH), 1.0) for site in SITES}
    other = {site: Direction(site, np.roll(vector, 5), np.zeros(WIDTH), 1.0) for site in SITES} if control else {}
    texts = texts or messages(N_FIT + N_TEST, seed)
    return prediction(Condition(chat, None), texts, shown, N_FIT, Directions(own, other, {}, []), **COUNTS)


@pytest.mark.parametrize("seed", range(3))
def test_a_direction_that_tells_and_a_detector_that_finds_it(
    chat: ChatModel, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    found = study(chat, monkeypatch, 3.0, seed, control=True)
    assert found["direction"]["site"] == found["detector"]["site"] == "residual[1]"
    assert found["direction"]["auroc"]["low"] > 0.9
    assert found["detector"]["auroc"]["low"] > 0.8
    assert found["detector"]["cosine"]["value"] > 0.8
    assert found["detector"]["cosine"]["low"] > 0.6 > found["detector"]["cosine"]["null"]
    assert found["control"]["low"] < 0.5 < found["control"]["high"]
    assert found["random"]["mean"] == pytest.approx(0.5, abs=0.2)
    assert found["random"]["p"] == found["detector"]["chance"]["p"] == 1 / 21
    assert found["detector"]["chance"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert found["detector"]["chance"]["farthest"] < found["detector"]["shuffled_fit"]["farthest"]
    first = found["sites"][0]
    assert first["direction"]["low"] < 0.5 < first["direction"]["high"]


@pytest.mark.parametrize("seed", range(3))
def test_without_a_signal_every_figure_is_chance(chat: ChatModel, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    found = study(chat, monkeypatch, 0.0, seed)
    assert found["detector"]["auroc"]["value"] == pytest.approx(0.5, abs=0.2)
    assert found["direction"]["auroc"]["value"] == pytest.approx(0.5, abs=0.2)
    assert found["detector"]["cosine"]["low"] < found["detector"]["cosine"]["null"]
    assert found["detector"]["chance"]["p"] > 1 / 21


def test_a_direction_beside_the_detector_shows_in_the_cosine(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Perfect detection by the detector, a direction that points elsewhere: the two are told apart."""
    found = study(chat, monkeypatch, 4.0, axis=7)
    assert found["detector"]["auroc"]["value"] > 0.95
    assert abs(found["detector"]["cosine"]["value"]) < 0.3
    assert found["direction"]["auroc"]["value"] < 0.7


def test_the_text_alone_stands_beside(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    shown = rng.random(N_FIT + N_TEST) < 0.5
    texts = [f"{'storm' if bad else 'calm'} word{i % 7} item{i}" for i, bad in enumerate(shown)]
    found = study(chat, monkeypatch, 0.0, labels=shown, texts=texts)
    assert found["text_only"]["value"] == 1.0
    assert found["direction"]["auroc"]["value"] < 0.8
    mixed = study(chat, monkeypatch, 0.0, labels=rng.permutation(shown), texts=texts)
    assert mixed["text_only"]["value"] < 0.8


@pytest.mark.parametrize("kind", ["never", "always", "rare"])
def test_one_class_alone_gives_no_figure_and_says_why(
    chat: ChatModel, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    labels = np.zeros(N_FIT + N_TEST, dtype=bool)
    if kind == "rare":
        labels[[1, 2, 3, 4, 5, N_FIT, N_FIT + 1]] = True
    found = study(chat, monkeypatch, 0.0, labels=~labels if kind == "always" else labels)
    assert "at least 5 messages of each kind" in found["not_possible"]
    if kind == "rare":
        assert "fit: 5 show it, 75 do not; test: 2 show it, 78 do not" in found["not_possible"]
    assert "direction" not in found


def test_test_labels_choose_nothing(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    shown = rng.random(N_FIT + N_TEST) < 0.5
    other = np.concatenate([shown[:N_FIT], ~shown[N_FIT:]])
    a, b = (study(chat, monkeypatch, 0.0, 4, labels=labels) for labels in (shown, other))
    assert (a["direction"]["site"], a["detector"]["site"]) == (b["direction"]["site"], b["detector"]["site"])
    assert a["direction"]["auroc"]["value"] == pytest.approx(1 - b["direction"]["auroc"]["value"])
