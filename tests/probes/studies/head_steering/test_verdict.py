from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from probes.directions import Floats
from probes.studies.framework.verdict import Judgement, Verdict
from probes.studies.head_steering.verdict import (
    CHOSEN,
    LAYER,
    PLAIN_NAME,
    PROBE_HEADS,
    RANDOM_DIRECTIONS,
    RANDOM_HEADS,
    WITHOUT_BEST,
    decide,
    marks,
    rank,
    text_warnings,
    transfer_sentence,
)

RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.1, 30)


def at(mean: float, spread: float = 0.1, seed: int = 1) -> NDArray[np.float64]:
    values = np.random.default_rng(seed).normal(0, spread, 30)
    found: NDArray[np.float64] = values - values.mean() + mean
    return found


def conditions(**changed: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    found = {PLAIN_NAME: np.zeros(30), CHOSEN: at(1.0, seed=2), LAYER: at(0.3), PROBE_HEADS: at(0.2, seed=3)}
    found |= {f"{RANDOM_DIRECTIONS} {i}": at(0.02 * i, seed=10 + i) for i in range(20)}
    found |= {f"{RANDOM_HEADS} {i}": at(-0.02 * i, seed=40 + i) for i in range(20)}
    return found | changed


def decided(
    effects: dict[str, NDArray[np.float64]] | None = None,
    undefined: float = 0.0,
    coherent: float = 0.9,
    **changed: NDArray[np.float64],
) -> Judgement:
    return decide(
        effects or conditions(**changed),
        {PLAIN_NAME: 0.0, CHOSEN: undefined},
        {PLAIN_NAME: 0.95, CHOSEN: coherent},
        "nats a token",
        ["a warning"],
    )


def test_better_than_all_controls_is_specific() -> None:
    found = decided()
    assert found.label == Verdict.WORKS_SPECIFIC
    assert "1.00 [0.96, 1.04] nats a token" in str(found)
    assert list(found.warnings) == ["a warning"]


@pytest.mark.parametrize(
    ("changed", "label", "said"),
    [
        ({CHOSEN: at(0.01)}, Verdict.NO_EFFECT, "may be nothing"),
        ({CHOSEN: at(-1.0)}, Verdict.NO_EFFECT, "may be nothing"),
        ({f"{RANDOM_DIRECTIONS} 3": at(1.01, seed=5)}, Verdict.NOISE, "random directions of the same size"),
        ({f"{RANDOM_DIRECTIONS} 3": at(2.0, seed=5)}, Verdict.NOISE, "random directions of the same size"),
        ({f"{RANDOM_HEADS} 4": at(1.02, seed=6)}, Verdict.WORKS_NOT_SPECIFIC, "random heads"),
        ({PROBE_HEADS: at(1.5, seed=6)}, Verdict.WORKS_NOT_SPECIFIC, "heads ranked by a probe"),
        ({LAYER: at(0.99, spread=1.0, seed=6)}, Verdict.WORKS_NOT_SPECIFIC, "layer vector"),
        ({LAYER: at(1.0, seed=6), PROBE_HEADS: at(1.0, seed=7)}, Verdict.WORKS_NOT_SPECIFIC, "probe and layer vector"),
    ],
)
def test_a_control_that_does_as_much_decides(
    changed: dict[str, NDArray[np.float64]], label: Verdict, said: str
) -> None:
    found = decided(effects=conditions(**changed))
    assert found.label == label
    assert said in str(found)


def test_a_control_that_was_not_tried_is_not_beaten() -> None:
    """Few heads to draw from, or none asked for: that nothing did as much then says nothing."""
    for kind in (RANDOM_HEADS, RANDOM_DIRECTIONS):
        without = {n: e for n, e in conditions().items() if not n.startswith(kind)}
        found = decided(effects=without)
        assert found.label == Verdict.SPECIFICITY_UNKNOWN
        assert f"Not tried often enough beside them: {kind}." in str(found)
        assert f"0 {kind} were tried; at least 20 are a control" in found.warnings
        shown = marks(
            270,
            5,
            {PLAIN_NAME: np.zeros(30), CHOSEN: np.ones(30)},
            [at(0.1, seed=4), at(0.5, seed=5), at(0.2, seed=6)],
            without,
        )
        assert f"beats {kind}" not in shown
        assert all(shown.values())
    without = {n: e for n, e in conditions().items() if n != LAYER}
    found = decided(effects=without)
    assert found.label == Verdict.WORKS_SPECIFIC
    assert "layer vector: not tried" in found.warnings


@pytest.mark.parametrize(
    ("draws", "as_much", "label"),
    [
        (20, 0, Verdict.WORKS_SPECIFIC),
        (20, 1, Verdict.NOISE),
        (18, 0, Verdict.SPECIFICITY_UNKNOWN),
        (5, 0, Verdict.SPECIFICITY_UNKNOWN),
        (5, 1, Verdict.NOISE),
        (99, 4, Verdict.WORKS_SPECIFIC),
        (99, 5, Verdict.NOISE),
    ],
)
def test_the_rank_among_random_directions_is_the_p_value(draws: int, as_much: int, label: Verdict) -> None:
    effects = {n: e for n, e in conditions().items() if not n.startswith(RANDOM_DIRECTIONS)}
    effects |= {f"{RANDOM_DIRECTIONS} {i}": at(1.5 if i < as_much else 0.3, seed=70 + i) for i in range(draws)}
    assert decided(effects=effects).label == label
    found = rank({n: float(e.mean()) for n, e in effects.items()}, RANDOM_DIRECTIONS)
    assert (found.draws, found.as_good) == (draws, as_much)
    assert found.p == pytest.approx((1 + as_much) / (1 + draws))


def test_text_that_breaks_is_noise_however_large_the_effect() -> None:
    assert decided(undefined=0.2).label == Verdict.NOISE
    assert "20% of the choices are undefined" in str(decided(undefined=0.2))
    assert decided(coherent=0.7).label == Verdict.NOISE
    assert "the text breaks" in str(decided(coherent=0.7))
    assert decided(undefined=0.05, coherent=0.85).label == Verdict.WORKS_SPECIFIC


@pytest.mark.parametrize(
    ("text", "own", "warned"),
    [((0.9, 0.8, 1.0), 0.95, True), ((0.9, 0.8, 0.94), 0.95, False), ((0.6, 0.45, 0.99), 0.95, False)],
)
def test_a_text_that_tells_as_much_as_the_detector_is_warned_of(
    text: tuple[float, float, float], own: float, warned: bool
) -> None:
    value, low, high = text
    found = text_warnings(
        {
            "text_only": {"auroc": {"value": value, "low": low, "high": high, "n": 60}},
            "test": {"auroc": {"value": own, "low": 0.9, "high": 1.0, "n": 60}},
        }
    )
    assert [w.startswith("the text alone tells the two answers apart as well (AUROC 0.90") for w in found] == (
        [True] if warned else []
    )


def rate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 40}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.4, -0.1, "It carries over"), (-0.2, 0.1, "It does not surely carry over"), (0.1, 0.3, "It carries over")],
)
def test_the_transfer_sentence_reads_the_paired_interval(low: float, high: float, said: str) -> None:
    change = {"value": (low + high) / 2, "low": low, "high": high, "n": 40}
    figures = {PLAIN_NAME: {"behaviour": rate(0.5)}, CHOSEN: {"behaviour": rate(0.3), "behaviour_change": change}}
    sentence = transfer_sentence(figures, "reckless")
    assert sentence.startswith(f"{said}: reckless in 0.50 of the open answers before, 0.30 after")


def test_marks() -> None:
    wanted = {PLAIN_NAME: np.zeros(30), CHOSEN: np.r_[np.ones(12), np.zeros(18)]}
    effects = conditions(**{WITHOUT_BEST: at(0.7, seed=9)})
    found = marks(270, 5, wanted, [at(0.1, seed=4), at(0.5, seed=5), at(0.2, seed=6)], effects)
    assert all(found.values())
    assert len(found) == 8
    found = marks(270, 0, wanted, [at(0.1, seed=4), at(0.2, seed=5), at(0.5, seed=6)], conditions(**{LAYER: at(3.0)}))
    assert [k for k, v in found.items() if not v] == [
        "few heads survive the re-test (at most 3 %)",
        "inverted U over alpha",
        "beats a layer-level vector",
    ]
    # Text that breaks behind the top is the far side of the U; text that breaks at once is none.
    assert marks(270, 5, wanted, [at(0.1), at(0.5), None], effects)["inverted U over alpha"]
    assert not marks(270, 5, wanted, [at(0.5), None, None], effects)["inverted U over alpha"]
    assert not marks(270, 9, wanted, [at(0.0), at(1.0), at(0.0)], effects)[
        "few heads survive the re-test (at most 3 %)"
    ]


def test_an_inverted_u_is_more_than_noise() -> None:
    """Three of five places are no end, so a largest value between the ends says nothing by itself."""
    wanted = {PLAIN_NAME: np.zeros(30), CHOSEN: np.ones(30)}

    def seen(*curve: Floats | None) -> bool:
        return marks(270, 5, wanted, curve, conditions())["inverted U over alpha"]

    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.3, (5, 30)) for _ in range(40)]
    assert sum(seen(*one) for one in noise) <= 4
    assert seen(at(0.2, seed=4), at(0.9, seed=5), at(0.3, seed=6))
    # A top that is hardly above the last strength has not fallen.
    assert not seen(at(0.2, seed=4), at(0.5, seed=5), np.roll(at(0.5, seed=5), 1) - 0.01)
    assert not seen(None, None, None)


def test_what_is_left_without_the_best_head_is_told_of_an_effect_alone() -> None:
    nothing = conditions(**{CHOSEN: at(0.0, seed=3), WITHOUT_BEST: at(0.01, seed=9)})
    wanted = {PLAIN_NAME: np.zeros(30), CHOSEN: np.zeros(30)}
    assert "most is left without the best head" not in marks(270, 5, wanted, [at(0.1)], nothing)
