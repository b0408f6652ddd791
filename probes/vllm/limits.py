"""What of vLLM's own settings the connector can read through, checked at start: never a wrong score.

Contract: `check(config, probes)` raises VllmSettingsError with the setting and what to do. `group_of(kv_cache_config)`
gives the number and the block size of the KV cache group whose blocks hold a token for as long as its request runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.card import Probe
from probes.vllm.settings import VllmSettingsError

# Versions that were run (docs/vllm.md).
TESTED = ("0.32",)


def check(
    config: Any, probes: Sequence[Probe], version: str, *, numbers: bool = True, other_dtype: bool = False
) -> None:
    """`config` is vLLM's VllmConfig. With `other_dtype` probes are read that were made in another one; `numbers` off:
    who reads compares reference scores."""
    if not version.startswith(tuple(f"{each}." for each in TESTED)):
        raise VllmSettingsError(
            f"vllm {version}: the connector was run with {', '.join(TESTED)} (deploy/vllm/requirements.txt)"
        )
    model, parallel = config.model_config, config.parallel_config
    if not model.enforce_eager:
        raise VllmSettingsError(
            "enforce_eager: off; probes are read by hooks, which compiled graphs leave out: start with --enforce-eager"
        )
    if parallel.pipeline_parallel_size > 1:
        raise VllmSettingsError("pipeline_parallel_size: over 1; blocks are in several processes: set it to 1")
    if any(getattr(parallel, f"{each}_context_parallel_size", 1) > 1 for each in ("decode", "prefill")):
        raise VllmSettingsError("context parallelism: tokens of a request are in several processes: set it to 1")
    heads = [probe.name for probe in probes if any(d.site.kind == "head" for d in probe.directions)]
    if heads and parallel.tensor_parallel_size > 1:
        raise VllmSettingsError(
            f"tensor_parallel_size: {parallel.tensor_parallel_size}, and {', '.join(heads)} reads heads, which are in "
            "several processes then: set it to 1, or use a probe of a residual site"
        )
    if numbers:
        _check_numbers(config, probes, other_dtype=other_dtype)
    if model.use_mla:
        raise VllmSettingsError("MLA: the KV cache of this model has no slots by token that were tested; use awry run")
    if str(config.cache_config.cache_dtype) not in ("auto", "float16", "bfloat16", "float32"):
        raise VllmSettingsError(
            f"kv_cache_dtype: {config.cache_config.cache_dtype}; a quantised KV cache changes activations beyond what "
            "was tested: set it to auto"
        )
    if getattr(config.cache_config, "kv_sharing_fast_prefill", False):
        raise VllmSettingsError("kv_sharing_fast_prefill: blocks do not see every token: leave it out")
    if config.kv_transfer_config is not None and config.kv_transfer_config.kv_connector != "AwryConnector":
        raise VllmSettingsError(
            f"kv_connector: {config.kv_transfer_config.kv_connector}; what another connector loads into the KV cache "
            "was not read here: let AwryConnector be the only one"
        )
    if config.speculative_config is not None:
        raise VllmSettingsError("speculative_config: tokens that are refused again would be read: leave it out")
    if getattr(model, "is_encoder_decoder", False) or model.runner_type != "generate":
        raise VllmSettingsError("model: probes read models that generate from one decoder")


def _check_numbers(config: Any, probes: Sequence[Probe], *, other_dtype: bool) -> None:
    """What the model computes with. The server replays no reference scores, so it has to be what the probes were made
    with."""
    model = config.model_config
    if model.quantization is not None:
        raise VllmSettingsError(
            f"quantization: {model.quantization}; the probes were made with the weights as they are: leave it out, or "
            "use awry run --engine vllm, which compares reference scores at its start"
        )
    if model.hf_overrides:
        raise VllmSettingsError("hf_overrides: the probes were made with the checkpoint's own config: leave it out")
    if str(model.tokenizer) != str(model.model):
        raise VllmSettingsError("tokenizer: the probes were made with the checkpoint's own tokenizer: leave it out")
    if config.load_config.load_format == "dummy":
        raise VllmSettingsError("load_format: dummy weights are no model that a probe was made with")
    here = str(model.dtype).removeprefix("torch.")
    for probe in probes:
        if probe.card.identity.dtype != here and not other_dtype:
            raise VllmSettingsError(
                f"dtype: {here}, and probe {probe.name} was made in {probe.card.identity.dtype}: start with --dtype "
                f"{probe.card.identity.dtype}, fit and calibrate it in {here}, or set other_dtype where you have "
                "compared the scores"
            )


def group_of(kv_cache_config: Any, *, prefix_caching: bool) -> tuple[int, int]:
    """(number, block size) of the KV cache group that is read."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MambaSpec, SlidingWindowSpec

    kept = windows = None
    if prefix_caching and any(isinstance(g.kv_cache_spec, MambaSpec) for g in kv_cache_config.kv_cache_groups):
        raise VllmSettingsError(
            "prefix caching: with a state, vLLM copies parts of cached blocks, whose values are not copied: start with "
            "--no-enable-prefix-caching"
        )
    for number, group in enumerate(kv_cache_config.kv_cache_groups):
        spec = group.kv_cache_spec
        inner = next(iter(getattr(spec, "kv_cache_specs", {}).values()), spec)
        if isinstance(inner, FullAttentionSpec):
            kept = (number, int(spec.block_size)) if kept is None else kept
        elif isinstance(inner, SlidingWindowSpec):
            windows = (number, int(spec.block_size)) if windows is None else windows
    if kept is not None:
        return kept
    if windows is not None and not prefix_caching:
        return windows
    if windows is not None:
        raise VllmSettingsError(
            "sliding window: no block attends to the whole text, and blocks of the KV cache are given away while a "
            "request runs: start with --no-enable-prefix-caching, or with --disable-hybrid-kv-cache-manager"
        )
    raise VllmSettingsError("model: no block has attention whose KV cache holds every token")
