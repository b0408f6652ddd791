"""awry's own data for studies of the adapters that it ships, so that each study runs from a clean checkout.

All of it is our own writing (`probes.organisms`). Sizes keep a study of SmolLM2-135M within half an hour on two cores;
a study of your own model takes your own files instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from probes.binary_choice import BinaryChoice
from probes.errors import DataError
from probes.hashing import sha256_text
from probes.model.load import user_message
from probes.organisms.messages import advice_questions, choices, everyday, requests
from probes.studies.head_steering.plan import Messages
from probes.studies.mitigation import Prompts
from probes.studies.safety_heads.plan import Request


@dataclass(frozen=True)
class Preset:
    """What goes with one adapter. `prediction_scale`: at full strength nearly every answer shows the behaviour."""

    control: str
    judge: str
    prompts: Prompts
    steered: int
    prediction_scale: float | None = None


def direction_preset(adapter: str) -> Preset:
    """Messages, judge and control of a shipped bad adapter; DataError for any other."""
    if adapter == "insecure_code":
        texts = Prompts(everyday("fit")[:96], everyday("select")[:24], everyday("test")[:96])
        return Preset("secure_code", "code", texts, 48, 0.8)
    if adapter == "reckless_advice":
        asked = advice_questions()
        return Preset("careful_advice", "reckless", Prompts(asked[:56], asked[56:80], asked[80:]), 80)
    raise DataError(
        f"adapter: no messages of awry's own go with {adapter}; give --fit-prompts, --select-prompts, --test-prompts "
        "and --metric"
    )


def heads_preset(adapter: str) -> tuple[str, list[BinaryChoice], Messages]:
    """Judge, two-choice data and messages for a heads study of a shipped bad adapter; DataError for any other."""
    benign = everyday("calibrate")[:60]
    if adapter == "reckless_advice":
        asked = advice_questions()
        return "reckless", choices("advice"), Messages(asked[80:90], asked[90:114], benign)
    if adapter == "insecure_code":
        return "code", choices("code"), Messages(everyday("select")[:10], everyday("test")[:24], benign)
    raise DataError(
        f"adapter: no questions of awry's own go with {adapter}; give --choices, --select-prompts, --test-prompts, "
        "--benign and --metric"
    )


def refusal_requests() -> tuple[list[Request], list[Request]]:
    """Harmful requests and their harmless twins, a group a pair; every category within any first few."""
    rows = sorted(requests(), key=lambda row: sha256_text(str(row["pair"])))
    harmful, harmless = (
        [Request(user_message(row[side]), str(row["pair"])) for row in rows] for side in ("harmful", "harmless")
    )
    return harmful, harmless
