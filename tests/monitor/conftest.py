from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from probes.model.load import ChatModel
from tests.support.tiny import tiny_chat
from tests.support.worker import checkpoint


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tiny matrices gain nothing from a second thread and wait for it on a busy machine."""
    if request.node.get_closest_marker("model"):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def chat() -> ChatModel:
    return tiny_chat("llama")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny checkpoint `tiny-chat` and a probe `drift.json` that flags everything."""
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint(folder)
    return folder
