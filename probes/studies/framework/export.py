"""Exports a study's probe: what `awry fit` makes of the study's rows, with a steering recipe in its card where given.

Contract: `fit_and_write` writes a probe whose split, figures and threshold are `awry fit`'s own; the threshold is set
on rows that the study has (`benign_name` says which), for want of others. Where the rows allow no probe the reason is
returned as `not_made`. `written` saves a probe made otherwise and describes it alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes import fitting
from probes.capture.sites import Site
from probes.card import Probe, save_probe
from probes.conditions import LAST_PROMPT
from probes.errors import DataError, DirectionError
from probes.model.load import ChatModel
from probes.progress import Progress
from probes.rows import Row, own_benign
from probes.steer.recipe import with_recipe
from probes.steer.steering import Intervention

TARGET_FPR = 0.05


def fit_and_write(
    chat: ChatModel,
    rows: Sequence[Row],
    sites: Sequence[Site],
    out: Path,
    *,
    name: str,
    description: str,
    benign_name: str,
    seed: int,
    recipe: Intervention | None = None,
    measured: dict[str, Any] | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Fit at the best of the sites (last prompt token), write; `written`'s figures, or `not_made` with the reason.

    `seed` splits the rows; `measured` are the recipe's figures in the study.
    """
    plan = fitting.Plan(
        name=name,
        description=description,
        sites=tuple(sites),
        aggregation=LAST_PROMPT,
        target_fpr=TARGET_FPR,
        seed=seed,
    )
    try:
        probe = fitting.fit(chat, rows, plan, benign=own_benign(rows, seed, benign_name), progress=progress)
    except (DataError, DirectionError) as error:
        return {"not_made": str(error)}
    return written(probe if recipe is None else with_recipe(probe, [recipe], measured or {}), out)


def written(probe: Probe, out: Path) -> dict[str, Any]:
    """Save a probe into the folder `out`; its file's name, where it reads, and its held-out figures."""
    evaluation = probe.card.evaluation
    return {
        "file": save_probe(probe, out).name,
        "site": str(probe.directions[0].site),
        "auroc": evaluation["test"]["auroc"],
        "text_only": evaluation["text_only"]["auroc"],
        "at_threshold": evaluation["at_threshold"],
    }
