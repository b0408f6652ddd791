"""The values of prompts' tokens from a vLLM in this process: for awry's own engine.

Contract: `Capture(cards).llm_options()` is what `vllm.LLM` is to be made with beside what else is wanted; `collect(llm,
prompts)` runs prompts of token ids and gives the values of each one's tokens, (tokens, columns) in float32 on the CPU,
the columns in the order of `probes.planes` for the cards' directions in their order. Every token of a prompt has its
values, those of a cached prefix included. RuntimeError where vLLM gives less than all of them.

vLLM must run in this process (VLLM_ENABLE_V1_MULTIPROCESSING=0): values are handed over in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.vllm.sinks import TOKEN_VALUES, VALUES


class Capture:
    """`cards` are names of shipped probes, or paths of cards."""

    def __init__(self, cards: Sequence[str]) -> None:
        self._cards = tuple(cards)

    def llm_options(self) -> dict[str, Any]:
        """See the module."""
        return {
            "enforce_eager": True,
            "kv_transfer_config": {
                "kv_connector": "AwryConnector",
                "kv_connector_module_path": "probes.vllm.connector",
                "kv_role": "kv_producer",
                "kv_connector_extra_config": {"probes": list(self._cards), "readings": TOKEN_VALUES},
            },
        }

    def collect(self, llm: Any, prompts: Sequence[Sequence[int]], *, lora_request: Any = None) -> list[Tensor]:
        """See the module."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False)
        given = [{"prompt_token_ids": list(ids)} for ids in prompts]
        outputs = llm.generate(given, sampling, lora_request=lora_request, use_tqdm=False)
        # The last step's values come with the one after it, in which nothing runs.
        llm.llm_engine.step()
        made = []
        for ids, output in zip(prompts, outputs, strict=True):
            values = VALUES.pop(output.request_id, None)
            if values is None or len(values) < len(ids):
                raise RuntimeError("vllm gave no values of a prompt's tokens")
            made.append(torch.from_numpy(np.ascontiguousarray(values[: len(ids)])))
        return made
