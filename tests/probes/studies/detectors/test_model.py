"""What the study of detectors finds, on fewer rows of the real model.

Margins: on three partitions of the fit pairs alone the difference in means fell by 0.07 to 0.15 with 160 everyday rows,
logistic regression by 0.01, and was better by 0.13 to 0.18 then.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.evaluation import auroc_value
from probes.model.builtin import SMOLLM2
from probes.model.load import load_chat_model, user_message
from probes.organisms.messages import PairSplit, everyday, request_pairs
from probes.progress import silent
from probes.rows import Row
from probes.studies.detectors.fits import Finding, Fits, Spec
from probes.studies.detectors.kept import KeptArrays
from probes.studies.detectors.methods import MEAN_USER

SITE = Site("residual", 14)


@pytest.mark.model
@pytest.mark.slow
def test_logistic_regression_tells_twins_apart_better_and_hangs_less_on_everyday_rows(
    state: Path, tmp_path: Path
) -> None:
    chat = load_chat_model(SMOLLM2, state)

    def rows(split: PairSplit) -> list[Row]:
        pairs = request_pairs(split)
        return [
            Row(encode(chat, user_message(pair[side]), spans=True), pair[side], side == "harmful", str(pair["pair"]))
            for side in ("harmful", "harmless")
            for pair in pairs
        ]

    quiet = [Row(encode(chat, user_message(text), spans=True), text, False, text) for text in everyday("fit")[:160]]
    fitted, test = rows("fit"), rows("test")
    every = Fits(chat, [*fitted, *quiet, *test], KeptArrays(tmp_path, {}), silent)
    every.read({MEAN_USER: [SITE]})
    place = np.arange(len(every.rows))
    held_out = place >= len(fitted) + len(quiet)
    labels = every.truth[held_out]

    def auroc(finding: Finding, parameter: float, messages: int) -> float:
        spec = Spec("m", finding, (SITE,), MEAN_USER, parameter)
        reader = every.reader(spec, place < len(fitted) + messages)
        return auroc_value(reader.directions[0].along(every.activations(MEAN_USER, SITE))[held_out], labels)

    means = {n: auroc("mean", 0.0, n) for n in (0, len(quiet))}
    logistic = {n: auroc("logistic", 100.0, n) for n in (0, len(quiet))}
    assert means[0] - means[len(quiet)] > 0.04
    assert abs(logistic[0] - logistic[len(quiet)]) < 0.03
    assert logistic[len(quiet)] > means[len(quiet)] + 0.08
    assert logistic[len(quiet)] > 0.76
