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

from probes.capture.batches import encode
from probes.capture.sites import Site, head_sites
from probes.conditions import LAST_PROMPT
from probes.directions import difference_in_means, pooled_activations
from probes.errors import DirectionError
from probes.evaluation import auroc_value
from probes.model.load import ChatModel, Message
from probes.progress import Progress, silent
from probes.rows import Row, split_rows
from probes.studies.framework.export import fit_and_write

Talk = tuple[Sequence[Message], str]
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
    sites = sorted(set(heads))
    made = fit_and_write(
        chat,
        rows,
        sites,
        out,
        name=name,
        description="Reads harmful requests at an attention head that carries refusals; made by a safety-heads study.",
        benign_name=_BENIGN_NAME,
        seed=split_seed,
        progress=progress,
    )
    if "not_made" in made:
        return made
    drawn = _random_heads(chat, split_rows(rows, split_seed), sites, draws, seed)
    return made | {"heads": [str(s) for s in sites], "random_heads": drawn}


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
