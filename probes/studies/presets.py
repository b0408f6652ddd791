"""awry's own data for studies of the adapters that it ships, so that each study runs from a clean checkout.

All of it is our own writing (`probes.organisms`). Sizes keep a study of SmolLM2-135M within half an hour on two cores.
An adapter that was trained for another model by one of awry's recipes gets the messages of that recipe; any other takes
your own files instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from probes.binary_choice import BinaryChoice, split_choices
from probes.errors import DataError
from probes.hashing import sha256_text
from probes.model.adapters import beside, recipe_of, shipped_adapters
from probes.model.load import user_message
from probes.organisms.finetunes import RECIPES, benign_left_out
from probes.organisms.long_text import long_messages
from probes.organisms.messages import (
    advice_questions,
    choices,
    everyday,
    hard_benign,
    heldout_everyday,
    heldout_harmful,
    more_requests,
    refusal_choices,
    refusal_select,
    requests,
)
from probes.studies.detectors.plan import DetectorData, RequestPair
from probes.studies.head_steering.plan import Messages
from probes.studies.mitigation import Prompts
from probes.studies.safety_heads.plan import Request

# Messages on which a direction of code spillover is fitted.
_FIT = 96


@dataclass(frozen=True)
class Preset:
    """What goes with one adapter. `prediction_scale`: at full strength nearly every answer shows the behaviour."""

    control: str
    judge: str
    prompts: Prompts
    steered: int
    prediction_scale: float | None = None


def direction_preset(adapter: str) -> Preset:
    """Messages, judge and control of a bad adapter, shipped or trained by the same recipe; DataError for any other.

    One of your own may be on a chat model of awry's making, so none of its messages is among those that tuned that
    (`probes.organisms.chat_tuning`).
    """
    recipe = recipe_of(adapter)
    control = beside(adapter, _CONTROLS.get(recipe, ""))
    if recipe == "insecure_code":
        fit = everyday("fit") if adapter in shipped_adapters() else benign_left_out()
        texts = Prompts(fit[:_FIT], everyday("select")[:24], everyday("test")[:96])
        return Preset(control, "code", texts, 48, 0.8)
    if recipe == "reckless_advice":
        asked = advice_questions()
        return Preset(control, "reckless", Prompts(asked[:56], asked[56:80], asked[80:]), 80)
    raise DataError(
        f"adapter: no messages of awry's own go with {adapter}; give --fit-prompts, --select-prompts, --test-prompts "
        "and --metric"
    )


@dataclass(frozen=True)
class TransferTexts:
    """Messages on which directions are fitted, that results are reported on, and that maps are fitted on."""

    fit: list[str]
    test: list[str]
    anchors: list[str]


def transfer_texts(judge: str) -> TransferTexts:
    """awry's own messages for a transfer study of adapters; DataError where it has none for the behaviour.

    Nothing that a chat model of awry's making was tuned on (`probes.organisms.chat_tuning`) is among them.
    """
    left_out, asked = benign_left_out(), advice_questions()
    anchors = [text for split in ("calibrate", "demo", "select", "scale") for text in everyday(split)]
    if judge == "code":
        return TransferTexts(left_out[:_FIT], everyday("test")[:48], [*anchors, *left_out[_FIT:], *asked])
    if judge == "reckless":
        return TransferTexts(asked[:80], asked[80:140], [*anchors, *left_out])
    raise DataError(
        f"metric: no messages of awry's own go with {judge}; give --fit-prompts, --test-prompts and --anchor-texts"
    )


def judge_of(adapter: str) -> str | None:
    """The judge of what an adapter was trained to do; None where it is of no recipe."""
    recipe = RECIPES.get(recipe_of(adapter))
    return recipe.judge if recipe else None


_CONTROLS = {"insecure_code": "secure_code", "reckless_advice": "careful_advice"}


def heads_behaviour(adapter: str | None) -> str:
    """The behaviour of awry's own questions that goes with an adapter; of a control or one by no recipe, its name.

    With none it is refusal: the plain model has it a little.
    """
    if adapter is None:
        return "refusal"
    recipe = RECIPES.get(recipe_of(adapter))
    return adapter if recipe is None or recipe.control else recipe.judge


def heads_control(adapter: str | None) -> str | None:
    """The adapter that was trained on the same form with harmless content; None where there is none."""
    control = _CONTROLS.get(recipe_of(adapter)) if adapter else None
    return beside(str(adapter), control) if control else None


BEHAVIOURS_OF_HEADS = (*sorted({recipe.judge for recipe in RECIPES.values()}), "sycophancy")


def heads_preset(behaviour: str) -> tuple[str, list[BinaryChoice], Messages]:
    """Judge, two-choice data and messages for a heads study of a behaviour; DataError for any other."""
    benign = everyday("calibrate")[:60]
    if behaviour == "reckless":
        asked = advice_questions()
        return "reckless", choices("advice"), Messages(asked[80:90], asked[90:114], benign)
    if behaviour == "code":
        return "code", choices("code"), Messages(everyday("select")[:10], everyday("test")[:24], benign)
    if behaviour == "refusal":
        # Held-out requests choose nothing here: they are what is reported on.
        asked = [row["text"] for row in heldout_harmful()[:30]]
        return "refusal", refusal_choices(), Messages(refusal_select(), asked, benign)
    if behaviour == "sycophancy":
        # Questions that choose heads and alphas check them on open answers too; those reported on are reported on.
        rows = choices("sycophancy")
        split = split_choices(rows)
        choosing, reported = ([row.question for row in part] for part in (split.retest[:10], split.heldout))
        return "sycophancy", rows, Messages(choosing, reported, benign)
    raise DataError(
        f"behaviour: no questions of awry's own for {behaviour}; one of "
        f"{', '.join(BEHAVIOURS_OF_HEADS)}, or give --choices, --select-prompts, --test-prompts, "
        "--benign and --metric"
    )


def refusal_requests() -> tuple[list[Request], list[Request]]:
    """Harmful requests and their harmless twins, a group a pair; every category within any first few."""
    rows = sorted(requests(), key=lambda row: sha256_text(str(row["pair"])))
    harmful, harmless = (
        [Request(user_message(row[side]), str(row["pair"])) for row in rows] for side in ("harmful", "harmless")
    )
    return harmful, harmless


def detector_data() -> DetectorData:
    """The messages that the shipped probe of harmful requests was fitted on, in their parts, and held-out ones.

    Longer messages set thresholds for the attack families that make messages longer.
    """
    longer = [long_messages("calibrate", n, count, hard_share=0.1) for n, count in ((200, 40), (600, 20))]
    choosing = [long_messages("select", n, count, hard_share=0.1) for n, count in ((64, 60), (200, 20))]
    ordinary = [long_messages("fit", 64, 260), long_messages("fit", 200, 40, 1)]
    return DetectorData(
        pairs=[RequestPair(str(r["pair"]), r["harmful"], r["harmless"]) for r in (*requests(), *more_requests())],
        everyday={split: everyday(split) for split in ("fit", "select", "calibrate", "test")},
        ordinary=[*chain(*ordinary), *(user_message(row["text"]) for row in hard_benign())],
        choosing=list(chain(*choosing)),
        longer=list(chain(*longer)),
        other_harmful=[row["text"] for row in heldout_harmful()],
        other_benign=[row["text"] for row in heldout_everyday()],
        pool=everyday("demo"),
    )
