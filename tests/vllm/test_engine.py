"""The contract of engines, for vLLM in this process: chunks of a prompt, cached prefixes, 16 requests at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
}

from probes.engines.vllm import VllmOptions, open_engine
from probes.model.unloaded import open_unloaded
from tests.probes.engines.contract import Case, EngineContract, loaded, made_in


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    model = made_in(tmp_path_factory.mktemp("engine"))
    state = model.folder.parent / "state"
    chat = open_unloaded(str(model.folder), state, engine="vllm", dtype="float32")
    probes = loaded(model.cards)
    readers = {str(card): probe.reader for card, probe in zip(model.cards, probes, strict=True)}
    args = {"max_num_seqs": 16, "max_num_batched_tokens": 64, "enable_chunked_prefill": True}
    engine = open_engine(chat, readers, VllmOptions(state, args))
    yield Case(engine, model.chat, probes)
    engine.close()


class TestVllmItself(EngineContract):
    """As it stands."""
