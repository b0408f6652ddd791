"""One in-process vLLM with the connector, as a process of its own: what it gave of the requests of a file.

`python -m tests.vllm.engine_process SPEC OUT`; SPEC is JSON: `model`, `options` of vllm.LLM, `connector` settings, and
`rounds`, each a list of requests that run together: `ids`, `max_tokens` and what it sends `aside`; `lora`: name and
folder of an adapter for all of them.
OUT is JSON: for each round `outputs` (token ids), and `readings` in the order of the requests; or `refused`, the error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}


def options(given: dict[str, Any], connector: dict[str, Any]) -> dict[str, Any]:
    """What vllm.LLM is made with."""
    return {
        "dtype": "float32",
        "max_model_len": 1024,
        "enforce_eager": True,
        "max_num_seqs": 16,
        "disable_log_stats": False,
        "kv_transfer_config": {
            "kv_connector": "AwryConnector",
            "kv_connector_module_path": "probes.vllm.connector",
            "kv_role": "kv_producer",
            "kv_connector_extra_config": {"readings": "memory", "response_ends_early": True, **connector},
        },
        **given,
    }


def main(spec: dict[str, Any]) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    from probes.vllm.sinks import HELD

    try:
        llm = LLM(model=spec["model"], **options(spec.get("options", {}), spec["connector"]))
    except Exception as error:
        return {"refused": str(error)}
    core = llm.llm_engine.engine_core.engine_core
    lora = None
    if "lora" in spec:
        from vllm.lora.request import LoRARequest

        lora = LoRARequest(spec["lora"][0], 1, spec["lora"][1])
    rounds = []
    for requests in spec["rounds"]:
        HELD.clear()
        if "abort_after" in spec:
            rounds.append(
                aborted(llm, requests, spec["abort_after"]) | {"kept": len(core.scheduler.connector._collector)}
            )
            continue
        sampling = [
            SamplingParams(
                temperature=0.0,
                max_tokens=each.get("max_tokens", 1),
                ignore_eos=True,
                extra_args={"kv_transfer_params": {"awry": each["aside"]}} if "aside" in each else None,
            )
            for each in requests
        ]
        prompts = [{"prompt_token_ids": each["ids"]} for each in requests]
        outputs = llm.generate(prompts, sampling, lora_request=lora, use_tqdm=False)
        while core.scheduler.has_requests():
            llm.llm_engine.step()
        rounds.append(
            {
                "outputs": [list(each.outputs[0].token_ids) for each in outputs],
                "readings": [HELD.get(each.request_id) for each in outputs],
                "held": len(HELD),
                "kept": len(core.scheduler.connector._collector),
            }
        )
    counters = {m.name: m.value for m in llm.get_metrics() if hasattr(m, "value")}
    return {"rounds": rounds, "preemptions": counters.get("vllm:num_preemptions", 0)}


def aborted(llm: Any, requests: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Every second request is aborted after so many steps, the first of them before it ever runs."""
    from vllm import SamplingParams

    from probes.vllm.sinks import HELD

    engine = llm.llm_engine
    for number, each in enumerate(requests):
        sampling = SamplingParams(temperature=0.0, max_tokens=each["max_tokens"], ignore_eos=True)
        engine.add_request(str(number), {"prompt_token_ids": each["ids"]}, sampling)
    engine.abort_request(["0"])
    outputs: dict[str, list[int]] = {}
    done = 0
    while engine.has_unfinished_requests():
        for output in engine.step():
            outputs[output.request_id] = list(output.outputs[0].token_ids)
        done += 1
        if done == steps:
            engine.abort_request([str(n) for n in range(2, len(requests), 2)])
    while engine.engine_core.engine_core.scheduler.has_requests():
        engine.step()
    return {
        "outputs": [outputs.get(str(n)) for n in range(len(requests))],
        "readings": [HELD.get(str(n)) for n in range(len(requests))],
        "held": len(HELD),
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
