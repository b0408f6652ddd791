"""The rules of the verdict, on outcomes of our own making."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from probes.capture.sites import Site
from probes.directions import Direction
from probes.steer.outcomes import GenerationOutcome
from probes.steer.steering import Intervention
from probes.studies.direction import dose
from probes.studies.direction.dose import CachedRunner, SweepResult
from probes.studies.direction.verdict import judge, warnings
from probes.studies.framework.controls import ORTHOGONAL, WRONG_LAYER
from probes.studies.framework.verdict import Verdict

SITE = Site("residual", 20)
CHOSEN = Intervention(Direction(SITE, np.ones(4), np.zeros(4), 1.0))
N = 60
# The share that shows the behaviour, and the share that reads badly.
Rates = tuple[float] | tuple[float, float]


def outcome(n: int, bad: float, broken: float = 0.0) -> GenerationOutcome:
    """`bad` share shows the behaviour; of the rest `broken` (a share of all) reads badly."""
    behaviour = np.arange(n) < round(bad * n)
    nll = np.where((np.arange(n) >= n - round(broken * n)) | behaviour, 9.0, 0.5)
    return GenerationOutcome(behaviour, nll, np.zeros(n), np.full(n, 40.0))


def swept(
    chosen: Rates,
    untouched: Rates = (0.9,),
    cosines: dict[str, float | None] | None = None,
    control_condition: Rates | None = None,
    n: int = N,
    controls: Mapping[str, Rates | None] | None = None,
) -> SweepResult:
    """Outcomes by condition, each (behaviour, broken); random directions default to doing nothing."""
    nothing: Any = None  # what generates; nothing is generated here
    stand = CachedRunner("test", [""] * n, nothing, nothing, 0, nothing, print)
    stand.outcomes = {dose.BASE: outcome(n, 0), dose.UNTOUCHED: outcome(n, *untouched)}
    if control_condition:
        stand.outcomes[dose.CONTROL_CONDITION] = outcome(n, *control_condition)
    stand.outcomes[str(CHOSEN)] = outcome(n, *chosen)
    names = {"orthogonal": ORTHOGONAL, "wrong": WRONG_LAYER, "content": dose.CONTENT}
    every: dict[str, Rates | None] = {
        **{f"random {i}": (0.85,) for i in range(20)},
        "orthogonal": (0.9,),
        "wrong": (0.8,),
        "content": (0.85,),
    }
    for name, found in (every | dict(controls or {})).items():
        if found is not None:
            stand.outcomes[names.get(name, name)] = outcome(n, *found)
    of_controls: dict[str, Any] = {WRONG_LAYER: 0.1} | (cosines or {})
    return SweepResult(CHOSEN, [], stand, [], of_controls)


def separated(low: float = 0.95, value: float = 1.0, **more: dict[str, Any] | float) -> list[dict[str, Any]]:
    accuracy = {"value": value, "low": low, "high": 1.0, "n": 100}
    spread = {"n": 20, "mean": 0.5, "farthest": 0.6}
    row = {
        "site": str(SITE),
        "accuracy": accuracy,
        "chance": spread | {"p": 1 / 21},
        "random": spread,
        "control": None,
        "top_dimension_share": 0.05,
    }
    return [row | more]


WORKS = (0.05, 0.05)


def test_what_beats_every_control_is_specific() -> None:
    found = judge(swept(WORKS), separated())
    assert found.label == Verdict.WORKS_SPECIFIC
    assert (
        found.sentence
        == "works and specific: no control of equal norm comes near it: random, orthogonal, wrong layer, content"
    )
    assert len(found.reasons) == 8
    assert found.differences["rank"] == {"draws": 20, "as_good": 0, "p": 1 / 21}
    assert found.differences["fall"]["value"] == pytest.approx(0.85, abs=0.01)


@pytest.mark.parametrize(
    ("control", "named", "label"),
    [
        ("random 3", "a random direction", Verdict.NOISE),
        ("orthogonal", "an orthogonal direction", Verdict.NOISE),
        ("wrong", "the direction of another layer", Verdict.WORKS_NOT_SPECIFIC),
        ("content", "the control's direction", Verdict.WORKS_NOT_SPECIFIC),
    ],
)
def test_one_control_that_does_as_well_decides(control: str, named: str, label: Verdict) -> None:
    found = judge(swept(WORKS, controls={control: (0.1, 0.05)}), separated())
    assert found.label == label
    assert named in found.sentence


def test_a_control_that_takes_the_behaviour_and_the_sense_is_no_rival() -> None:
    assert judge(swept(WORKS, controls={"content": (0.0, 0.95)}), separated()).label == Verdict.WORKS_SPECIFIC


def test_a_wrong_layer_with_nearly_the_same_direction_is_no_control() -> None:
    found = judge(swept(WORKS, controls={"wrong": (0.1, 0.05)}, cosines={WRONG_LAYER: 0.9}), separated())
    assert found.label == Verdict.WORKS_SPECIFIC
    assert not any("another layer" in reason for reason in found.reasons)
    assert found.sentence.endswith("comes near it: random, orthogonal, content")
    undecided = judge(swept(WORKS, controls={"wrong": None, "content": None}), separated())
    assert undecided.sentence.endswith("it beats random directions, but no content control was given")


def test_a_behaviour_that_goes_with_the_sense_is_noise() -> None:
    found = judge(swept((0.0, 1.0)), separated())
    assert found.label == Verdict.NOISE
    assert "the text breaks" in found.sentence


def test_rows_that_are_not_told_apart_are_noise_whatever_steering_does() -> None:
    found = judge(swept(WORKS), separated(low=0.45, value=0.55))
    assert found.label == Verdict.NOISE
    assert "not told apart" in found.sentence


@pytest.mark.parametrize(("chosen", "n"), [((0.85, 0.05), 60), ((0.8, 0.05), 12), ((0.9,), 60)])
def test_a_fall_that_is_small_or_may_be_nothing_is_no_effect(
    chosen: tuple[float, float] | tuple[float], n: int
) -> None:
    assert judge(swept(chosen, n=n), separated()).label == Verdict.NO_EFFECT


def test_no_content_control_leaves_it_unknown_and_too_few_messages_undecided() -> None:
    assert judge(swept(WORKS, controls={"content": None}), separated()).label == Verdict.SPECIFICITY_UNKNOWN
    # 12 messages: 0.17 better than the content control, and that may be nothing.
    few = judge(swept((0.0, 0.08), untouched=(0.9,), n=12, controls={"content": (0.25,)}), separated())
    assert few.label == Verdict.UNDECIDED
    assert "too few messages" in few.sentence


def test_a_behaviour_that_is_hardly_there_cannot_be_lowered() -> None:
    assert judge(swept((0.0,), untouched=(0.1,)), separated()).label == Verdict.NOT_TESTABLE
    assert judge(swept((0.0,), untouched=(0.2,)), separated()).label != Verdict.NOT_TESTABLE


def test_few_random_directions_leave_it_undecided() -> None:
    """Of 19 draws none is as good, and p is still 0.05: the rank says nothing."""
    found = judge(swept(WORKS, controls={"random 19": None}), separated())
    assert found.label == Verdict.UNDECIDED
    assert "0 of 19 random draws are as good (p = 0.050; fewer than 20 draws are no test at 5 %)" in found.sentence


PREDICTED: dict[str, Any] = {
    "text_only": {"value": 0.6, "low": 0.5, "high": 0.7, "n": 90},
    "direction": {"auroc": {"value": 0.9, "low": 0.85, "high": 0.95, "n": 90}},
    "control": None,
    "random": {"n": 5, "mean": 0.5, "farthest": 0.6},
    "detector": None,
}


def warned(
    found: SweepResult | None = None,
    rows: list[dict[str, Any]] | None = None,
    prediction: dict[str, Any] = PREDICTED,
    text: dict[str, float] | None = None,
    without: Sequence[str] = (),
    control: bool = True,
    blocks: int = 30,
) -> str:
    return " | ".join(
        warnings(
            found or swept(WORKS),
            rows or separated(),
            prediction,
            text,
            list(without),
            has_control=control,
            blocks=blocks,
        )
    )


def test_a_clean_study_has_no_warning() -> None:
    assert warned() == ""


def test_separation_that_says_little_is_said() -> None:
    spread = {"n": 20, "mean": 0.5, "farthest": 0.98}
    assert "separation 1.00 may be chance" in warned(rows=separated(chance=spread | {"p": 0.1}))
    assert warned(rows=separated(shuffled_fit=spread)) == ""  # along the label's axis, and not for want of a label
    assert "random directions separate as well (0.97 on average" in warned(
        rows=separated(random=spread | {"mean": 0.97})
    )
    control = {"accuracy": {"value": 0.99, "low": 0.9, "high": 1.0, "n": 9}}
    assert "control's own direction separates its arm as well (0.99)" in warned(rows=separated(control=control))
    assert "one dimension holds 80%" in warned(rows=separated(top_dimension_share=0.8))


def test_a_label_that_is_a_copy_of_the_text_is_said() -> None:
    copy = {"value": 0.99, "low": 0.95, "high": 1.0, "n": 90}
    assert "copy of the text" in warned(text=copy)
    chance = {"value": 0.52, "low": 0.4, "high": 0.65, "n": 90}
    assert warned(text=chance) == ""
    as_well = PREDICTED | {"text_only": {"value": 0.88, "low": 0.8, "high": 0.93, "n": 90}}
    assert "the text alone predicts the behaviour about as well" in warned(prediction=as_well)
    assert "within-model prediction: too few" in warned(prediction={"not_possible": "too few"})


def test_a_prediction_that_anything_makes_is_said() -> None:
    figure = {"value": 0.88, "low": 0.8, "high": 0.93, "n": 90}
    assert "the control's direction predicts the behaviour about as well (AUROC 0.88" in warned(
        prediction=PREDICTED | {"control": figure}
    )
    assert warned(prediction=PREDICTED | {"control": figure | {"value": 0.7}}) == ""
    random = PREDICTED["random"] | {"farthest": 0.87}
    assert "a random direction predicts the behaviour about as well (AUROC 0.87" in warned(
        prediction=PREDICTED | {"random": random}
    )
    for p, said in ((2 / 21, "may be chance: with the labels of both splits shuffled as much comes out"), (1 / 21, "")):
        detector = {"auroc": figure, "chance": {"n": 20, "mean": 0.5, "farthest": 0.6, "p": p}}
        found = warned(prediction=PREDICTED | {"detector": detector})
        assert said in found
        assert bool(found) == bool(said)


def test_form_rather_than_content_is_said() -> None:
    assert "form of the training data" in warned(swept(WORKS, control_condition=(0.9,)))
    assert "form" not in warned(swept(WORKS, control_condition=(0.3,)))


def test_what_else_limits_a_label_is_said() -> None:
    assert "no content control" in warned(control=False)
    assert "no direction (both arms alike, or not finite) at residual[0], final" in warned(
        without=["residual[0]", "final"]
    )
    assert "only edits each token's logits" in warned(blocks=21)
    assert "left out of the controls" in warned(swept(WORKS, cosines={WRONG_LAYER: 0.9}))
    assert "the wrong layer is missing" in warned(swept(WORKS, controls={"wrong": None}, cosines={WRONG_LAYER: None}))
    assert "hardly shows the behaviour" in warned(swept((0.0,), untouched=(0.0,)))
    assert "good less often than the base model's" in warned(swept((0.05, 0.4)))
