"""Exports a safety-heads study's probe: it reads harmful requests at the heads that the study named.

The probe is `awry fit`'s, made of all of the study's requests at the heads that the study named, at the last prompt
token; it has the study's own split, so that what was attributed on is no test row. Beside it: as many heads drawn at
random, put through the same choice. There is no steering recipe: taking these heads away takes refusals away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probes import fitting
from probes.capture.batches import encode
from probes.capture.sites import Site, head_sites
from probes.card import save_probe
from probes.conditions import LAST_PROMPT
from probes.directions import difference_in_means, pooled_activations
from probes.errors import DataError, DirectionError
from probes.evaluation import auroc_value
from probes.model.load import ChatModel, Message
from probes.progress import Progress, silent
from probes.rows import Row, own_benign, split_rows

Talk = tuple[Sequence[Message], str]
_TARGET_FPR = 0.05
_BENIGN_NAME = "harmless requests of the fit and select splits: calibrate on your own traffic"


def write_probe(
    chat: ChatModel,
    harmful: Sequence[Talk],
    harmless: Sequence[Talk],
    heads: Sequence[Site],
    name: str,
    out: Path,
    *,
    split_seed: int,
    draws: int,
    seed: int,
    max_tokens: int,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fit, evaluate beside random heads, write; returns the file's name and figures, or `not_made` with the reason.

    `harmful` and `harmless` are conversations with the group that each belongs to.
    """
    rows = [
        Row(encode(chat, talk, None, max_tokens), chat.render(talk), bad, group)
        for bad, talks in ((True, harmful), (False, harmless))
        for talk, group in talks
    ]
    plan = fitting.Plan(
        name=name,
        description="Reads harmful requests at an attention head that carries refusals; made by a safety-heads study.",
        sites=tuple(sorted(set(heads))),
        aggregation=LAST_PROMPT,
        target_fpr=_TARGET_FPR,
        seed=split_seed,
    )
    try:
        benign = own_benign(rows, split_seed, _BENIGN_NAME)
        probe = fitting.fit(chat, rows, plan, benign=benign, progress=progress)
        drawn = _random_heads(chat, split_rows(rows, split_seed), plan.sites, draws, seed)
    except (DataError, DirectionError) as error:
        return {"not_made": str(error)}
    path = save_probe(probe, out)
    card = probe.card
    return {
        "file": path.name,
        "site": card.directions[0].site,
        "heads": [str(s) for s in plan.sites],
        "auroc": card.evaluation["test"]["auroc"],
        "text_only": card.evaluation["text_only"]["auroc"],
        "random_heads": drawn,
        "at_threshold": card.evaluation["at_threshold"],
    }


def _random_heads(
    chat: ChatModel, splits: Mapping[str, Sequence[Row]], heads: Sequence[Site], draws: int, seed: int
) -> list[float]:
    """Test AUROC of the best of as many other heads, chosen on `select`, a draw each; fewer where a model has fewer."""
    others = head_sites(chat.layout)
    others = [s for s in others if s not in heads]
    values = {p: pooled_activations(chat, [r.encoded for r in m], others, LAST_PROMPT) for p, m in splits.items()}
    labels = {part: np.array([r.misaligned for r in members]) for part, members in splits.items()}
    aurocs: dict[Site, tuple[float, float]] = {}
    for site in others:
        bad, good = values["fit"][site][labels["fit"]], values["fit"][site][~labels["fit"]]
        try:
            direction = difference_in_means(site, bad, good)
        except DirectionError:  # nothing to read there: the last prompt token is the same for every prompt
            continue
        select, test = (auroc_value(direction.along(values[p][site]), labels[p]) for p in ("select", "test"))
        aurocs[site] = (select, test)
    rng = np.random.default_rng(seed)
    usable = list(aurocs.values())
    size = min(len(heads), len(usable))
    drawn = [[usable[i] for i in rng.choice(len(usable), size, replace=False)] for _ in range(draws)] if size else []
    return [max(draw)[1] for draw in drawn]
