from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.model.load import ChatModel
from tests.support.models.tiny import tiny_chat
from tests.support.stream.worker import checkpoint
from tests.support.threads import one_torch_thread


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    with one_torch_thread(unless=request.node.get_closest_marker("model") is not None):
        yield


@pytest.fixture(scope="session")
def chat() -> ChatModel:
    return tiny_chat("llama")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny checkpoint `tiny-chat` and a probe `drift.json` that flags everything."""
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint(folder)
    return folder
