"""vLLM's own extraction of hidden states with the least work behind it, to compare the connector's hooks with.

Contract: a KV connector for `--speculative-config` of method `extract_hidden_states`. When a request is finished its
hidden states are read from their cache and projected on one direction, and the number is dropped. For a CPU: the
connector that vLLM brings writes files by CUDA's streams. Reads prompts alone; what it costs at each decode step, where
extraction checks one more token, is paid all the same.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (
    ExampleHiddenStatesConnector,
    extract_from_kv_cache,
)


class Extraction(ExampleHiddenStatesConnector):  # type: ignore[misc]
    """See the module."""

    def wait_for_save(self) -> None:
        return None

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        del finished_req_ids
        metadata: Any = self._get_connector_metadata()
        done = set()
        for pending in metadata.pending_saves:
            blocks = torch.tensor(pending.block_ids).unsqueeze(1) * self._block_size
            slots = (blocks + torch.arange(self._block_size)).flatten()
            states = extract_from_kv_cache(self._kv_cache, slots, len(pending.token_ids))
            (states.float() @ torch.ones(states.shape[-1])).amax().item()
            done.add(pending.req_id)
        return done or None, None
