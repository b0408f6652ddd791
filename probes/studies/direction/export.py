"""Exports a direction study's probe, with the chosen steering recipe in its card.

The probe is what `awry fit` makes of the study's messages and of the answers that the misaligned condition itself gave
to them, at the strength of the prediction; it has its own split and figures. Its threshold is set on rows that it
was fitted on, and its card says so. The recipe is the study's choice, with its test figures and its verdict. No probe
is made where the answers do not allow one, and the reason is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes import fitting
from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.card import save_probe
from probes.conditions import LAST_PROMPT, Condition
from probes.errors import DataError, DirectionError
from probes.model.load import user_message
from probes.progress import Progress
from probes.rows import Row, own_benign
from probes.steer.recipe import with_recipe
from probes.steer.steering import Intervention

_TARGET_FPR = 0.05
_BENIGN_NAME = "aligned rows of the fit and select splits, for want of others: calibrate on your own traffic"


def write_probe(
    condition: Condition,
    messages: Sequence[str],
    labels: Sequence[bool],
    sites: Sequence[Site],
    recipe: Intervention,
    measured: dict[str, Any],
    name: str,
    out: Path,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Fit, attach, write; returns the file's name and figures, or `not_made` with the reason."""
    blocks = tuple(s for s in sites if s.kind == "residual")
    plan = fitting.Plan(
        name=name,
        description="Reads the prompt for answers that the model is about to give; made by a direction study.",
        sites=blocks or tuple(sites),
        aggregation=LAST_PROMPT,
        target_fpr=_TARGET_FPR,
        seed=seed,
    )
    try:
        with condition.applied() as chat:
            rows = [
                Row(encode(chat, user_message(text)), text, bool(label), text)
                for text, label in zip(messages, labels, strict=True)
            ]
            probe = fitting.fit(chat, rows, plan, benign=own_benign(rows, seed, _BENIGN_NAME), progress=progress)
    except (DataError, DirectionError) as error:
        return {"not_made": str(error)}
    path = save_probe(with_recipe(probe, [recipe], measured), out)
    evaluation = probe.card.evaluation
    return {
        "file": path.name,
        "site": str(probe.directions[0].site),
        "scale": condition.strength,
        "auroc": evaluation["test"]["auroc"],
        "at_threshold": evaluation["at_threshold"],
    }
