"""What the study of detectors finds, on fewer rows of the real model: figures are in docs/measurements.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.evaluation import auroc_value
from probes.model.builtin import SMOLLM2
from probes.model.load import load_chat_model, user_message
from probes.organisms.messages import everyday, request_pairs
from probes.progress import silent
from probes.rows import Row
from probes.studies.detectors.fits import Fits, Spec
from probes.studies.detectors.kept import KeptArrays
from probes.studies.detectors.methods import LAST

SITE = Site("residual", 27)


@pytest.mark.model
@pytest.mark.slow
def test_logistic_regression_tells_twins_apart_better_and_hangs_less_on_everyday_rows(
    state: Path, tmp_path: Path
) -> None:
    chat = load_chat_model(SMOLLM2, state)

    def rows(split: str) -> list[Row]:
        pairs = request_pairs(split)  # type: ignore[arg-type]
        return [
            Row(encode(chat, user_message(pair[side])), pair[side], side == "harmful", str(pair["pair"]))
            for side in ("harmful", "harmless")
            for pair in pairs
        ]

    quiet = [Row(encode(chat, user_message(text)), text, False, text) for text in everyday("fit")]
    fitted, test = rows("fit"), rows("test")
    every = Fits(chat, [*fitted, *quiet, *test], KeptArrays(tmp_path, {}), silent)
    every.read({LAST: [SITE]})
    place = np.arange(len(every.rows))
    held_out = place >= len(fitted) + len(quiet)
    labels = every.truth[held_out]

    def auroc(finding: str, parameter: float, messages: int) -> float:
        spec = Spec("m", finding, (SITE,), LAST, parameter)  # type: ignore[arg-type]
        reader = every.reader(spec, place < len(fitted) + messages)
        return auroc_value(reader.directions[0].along(every.activations(LAST, SITE))[held_out], labels)

    means = {n: auroc("mean", 0.0, n) for n in (0, len(quiet))}
    logistic = {n: auroc("logistic", 100.0, n) for n in (0, len(quiet))}
    assert means[0] - means[len(quiet)] > 0.05
    assert abs(logistic[0] - logistic[len(quiet)]) < 0.05
    assert logistic[len(quiet)] > means[len(quiet)] + 0.08
    assert logistic[len(quiet)] > 0.78
