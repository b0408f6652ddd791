"""On every class of models that is tested: what the check at start allows is right, and what it leaves out is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from probes.capture.aggregation import Aggregation
from probes.capture.sites import Site
from probes.reuse.check import settle
from probes.reuse.sequences import SequenceReader
from probes.scoring import Reader, Scorer
from tests.probes.reuse.test_sequences import LOTS, TRAFFIC, alone, read
from tests.probes.test_scoring import direction
from tests.support.models.classes import CASES, class_chat

# Their caches are something else than keys and values of every token in every block.
NOT_KEPT = frozenset(
    [
        "axk2",
        "bailing_hybrid",
        "bamba",
        "deepseek_v32",
        "falcon_h1",
        "falcon_mamba",
        "glm_moe_dsa",
        "granitemoehybrid",
        "inkling2_text",
        "inkling_text",
        "jamba",
        "kimi_linear",
        "lfm2",
        "lfm2_moe",
        "lfm3",
        "longcat_flash",
        "mamba",
        "mamba2",
        "minimax",
        "nemotron_h",
        "olmo_hybrid",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_next",
        "recurrent_gemma",
        "rwkv",
        "xlstm",
        "zamba",
        "zamba2",
        "zaya",
    ]
)
SPEED = Path(__file__).parents[3] / "docs" / "speed.md"


@pytest.mark.parametrize("model_type", CASES)
def test_what_is_read_once_scores_the_same(model_type: str) -> None:
    chat = class_chat(model_type)
    layout = chat.layout
    sites = [Site("residual", 0), Site("residual", layout.n_blocks - 1), Site("final")]
    readers = [Reader((direction(layout, site),), Aggregation("max_rolling_mean", "prompt", 4)) for site in sites]
    scorer = Scorer(layout, readers, chat.device)
    reader = SequenceReader(scorer.projection, max_bytes=LOTS)
    off = settle(reader, scorer, chat.vocabulary, 1e-4)
    assert reader.reuse.within
    assert reader.reuse.prefixes == (model_type not in NOT_KEPT)
    assert [reason.split(":")[0] for reason in off] == ["kept prefixes"] * (not reader.reuse.prefixes)
    traffic = TRAFFIC[:9:2] + TRAFFIC[9:14]
    for _ in range(2):
        for ids, values in zip(traffic, read(reader, traffic), strict=True):
            torch.testing.assert_close(values, alone(scorer, ids), atol=1e-4, rtol=1e-4)


def test_the_page_names_the_classes_whose_beginnings_are_read_again() -> None:
    named = set(
        SPEED.read_text()
        .split("Beginnings are read again with")[1]
        .split("\n\n")[0]
        .replace("`", " ")
        .replace(",", " ")
        .split()
    )
    assert named >= NOT_KEPT
    assert not named & (set(CASES) - NOT_KEPT)
