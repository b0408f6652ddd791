"""The contract of engines, for transformers."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from probes.engines.transformers import TransformersEngine
from tests.probes.engines.contract import Case, EngineContract, loaded, made_in


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    model = made_in(tmp_path_factory.mktemp("engine"))
    return Case(TransformersEngine(model.chat), model.chat, loaded(model.cards))


class TestTransformers(EngineContract):
    """As it stands."""


def test_a_new_card_names_the_engine_that_made_its_references(tmp_path: Path) -> None:
    made = made_in(tmp_path)
    assert {probe.card.engine for probe in loaded(made.cards[:2])} == {f"transformers {version('transformers')}"}
