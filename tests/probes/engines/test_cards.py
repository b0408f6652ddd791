"""The engine that calibrated a probe, on its card: said, and of no consequence for which probe it is."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from probes.card import load_probe, probe_files, save_probe, shipped_probes
from probes.fitting import recalibrated
from probes.hashing import card_digest
from probes.seen import row_set

# As they were when they were shipped: rows of databases hold them.
DIGESTS = {
    "harmful-request": "85d0aa83a115f1fe04d4eb27115c1231",
    "insecure-code-spillover": "5bb49f5ced57b790cd3f89dabf7d7fcf",
    "spilled-code-response": "020d6e04b09b308ffd7b675d73494705",
}


def test_shipped_cards_are_the_probes_that_they_were() -> None:
    assert {name: load_probe(name).digest for name in shipped_probes()} == DIGESTS


@pytest.mark.parametrize("name", DIGESTS)
def test_naming_an_engine_changes_no_digest(name: str, tmp_path: Path) -> None:
    card = json.loads(probe_files(name)[0].read_text())
    assert card.get("engine") is None
    assert card_digest({**card, "engine": "vllm 0.32.0"}) == card_digest({**card, "engine": None}) == DIGESTS[name]
    probe = load_probe(name)
    probe.card = probe.card.model_copy(update={"engine": "vllm 0.32.0"})
    again = load_probe(save_probe(probe, tmp_path))
    assert (again.card.engine, again.digest) == ("vllm 0.32.0", probe.digest)


def test_a_threshold_that_is_set_on_rows_names_what_read_them() -> None:
    probe = load_probe("harmful-request")
    assert recalibrated(probe, probe.card.calibration, row_set(["a"])).card.engine == (
        f"transformers {version('transformers')}"
    )
    assert recalibrated(probe, probe.card.calibration).card.engine is None
