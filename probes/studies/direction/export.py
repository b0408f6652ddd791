"""Exports a direction study's probe, with the chosen steering recipe in its card.

The probe is what `awry fit` makes of the study's messages and of the answers that the misaligned condition itself gave
to them, at the strength of the prediction. The recipe is the study's choice, with its test figures and its verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.conditions import Condition
from probes.model.load import user_message
from probes.progress import Progress
from probes.rows import Row
from probes.steer.steering import Intervention
from probes.studies.framework.export import fit_and_write

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
    with condition.applied() as chat:
        rows = [
            Row(encode(chat, user_message(text)), text, bool(label), text)
            for text, label in zip(messages, labels, strict=True)
        ]
        made = fit_and_write(
            chat,
            rows,
            [s for s in sites if s.kind == "residual"] or sites,
            out,
            name=name,
            description="Reads the prompt for answers that the model is about to give; made by a direction study.",
            benign_name=_BENIGN_NAME,
            seed=seed,
            recipe=recipe,
            measured=measured,
            progress=progress,
        )
    return made | {"scale": condition.strength}
