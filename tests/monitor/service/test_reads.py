"""Which blocks a worker reads and loads, known from the cards before the model is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from alerts.lifecycle.audit import Actor
from monitor.service import bootstrap, registration
from monitor.service.reads import costs, sites_of
from monitor.settings import Settings
from probes.capture.sites import Site
from probes.card import load_probe, save_probe, shipped_probes
from probes.errors import ModelError
from storage import probe_registry
from tests.support.models.tiny import tiny_chat
from tests.support.stream.worker import checkpoint, make_probe, wire_message

ANNA = Actor("anna", "cli", "here")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, model=str(checkpoint(tmp_path)), probes=(str(tmp_path / "drift.json"),))


def test_a_worker_loads_what_its_probes_read(settings: Settings, engine: Engine) -> None:
    said: list[str] = []
    sites = sites_of(settings, engine)
    assert sites == (Site("residual", 1),)
    chat = bootstrap.load_model(settings, said.append, sites)
    probes = bootstrap.load_probes(settings, chat, said.append)
    assert "reads blocks 0..1 of 3 (67 % of the forward pass)" in said
    assert [any(p.is_meta for p in block.parameters()) for block in chat.layout.blocks] == [False, False, True]
    whole = bootstrap.load_model(settings)
    assert chat.identity == whole.identity
    messages = [wire_message(id=str(n), prompt="word " * n) for n in range(1, 9)]
    read, wanted = (bootstrap.scorer_of(settings, each, probes)(messages) for each in (chat, whole))
    # How messages share passes goes by time, and rounding with it.
    assert [o.scores[0].score for o in read] == pytest.approx([o.scores[0].score for o in wanted], abs=1e-5)
    with pytest.raises(ModelError, match="was not loaded"):
        chat.model.generate(input_ids=chat.model.dummy_inputs["input_ids"])  # type: ignore[operator, index]


def test_mitigation_needs_the_whole_model(settings: Settings, engine: Engine) -> None:
    assert sites_of(settings.model_copy(update={"mitigate": "flagged"}), engine) is None


def test_the_registry_and_the_shipped_probes_are_looked_at(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    chat = bootstrap.load_model(settings)
    card = save_probe(make_probe(chat, "deep", sites=["head[2,1]", "residual[0]"]), tmp_path / "deep")
    with engine.begin() as connection:
        entry, _ = registration.register_files(connection, str(card), ANNA)
        probe_registry.promote(connection, entry, "live")
    for name in ("registry:live", "registry:deep", f"registry:{entry.digest}"):
        found = sites_of(settings.model_copy(update={"probes": (name,)}), engine)
        assert set(found or ()) == {Site("head", 2, 1), Site("residual", 0)}, name
    shipped = sites_of(settings.model_copy(update={"probes": ()}), engine)
    of_base = [p for p in map(load_probe, shipped_probes()) if not p.card.identity.adapter_sha256]
    assert set(shipped or ()) == {d.site for p in of_base if p.aggregation.span != "response" for d in p.directions}


def test_what_one_deep_probe_costs_is_said() -> None:
    chat = tiny_chat("llama")

    def said(*sites: str) -> list[str]:
        return list(costs([make_probe(chat, f"at{n}", sites=[site]) for n, site in enumerate(sites)], 3))

    assert said("residual[0]") == ["reads block 0 of 3 (33 % of the forward pass)"]
    assert said("head[1,0]", "residual[0]") == ["reads blocks 0..1 of 3 (67 % of the forward pass)"]
    assert said("residual[2]") == ["reads blocks 0..2 of 3 (100 % of the forward pass)"]
    whole = "reads blocks 0..2 of 3 (100 % of the forward pass)"
    for deep in ("final", "residual[2]", "head[2,0]"):
        assert said("residual[1]", deep, "residual[0]") == [
            whole,
            "warning: at1 alone reads the last block; without it the worker would read blocks 0..1 of 3 (67 % of the "
            "forward pass), and load no more",
        ]
    assert said("final", "residual[2]", "residual[0]") == [whole]
