"""Whether a decoder runs the way its parts look: a forward pass without weights, numbers or memory.

`probes.model.layout` finds parts by their place; what is done with them shows only when they run. Contract:
`try_out(make)` builds the model of tensors that have a shape and no values (PyTorch's fake tensors), reads a few token
ids, and raises LayoutError where the pass is not that of a residual stream: a block is not run, run more than once or
out of order, returns something else than (rows, tokens, width), or what the decoder returns is not what its final norm
gave behind the last block. It takes seconds. Where such a pass cannot be run (code that asks for values) it returns
False: nothing is known then, and a site that is not what it seems is refused when it is first read.

For classes that no test covers, among them those of a checkpoint's own code: `TESTED` are read exactly
(`docs/models.md`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probes.capture.sites import hidden_of
from probes.errors import LayoutError
from probes.model.layout import Layout, find_layout

# By `model_type` of the text decoder's config.
_NAMES = """
    afmoe apertus arcee aria_text axk1 axk2 bailing_hybrid bamba beam biogpt bitnet bloom codegen cohere cohere2
    cohere2_moe cohere_compass_text ctrl cwm dbrx deepseek_v2 deepseek_v3 deepseek_v32 diffllama doge dots1 ernie4_5
    ernie4_5_moe exaone4 exaone_moe falcon falcon_h1 falcon_mamba flex_olmo flint gemma gemma2 gemma3_text
    gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa gpt2 gpt_bigcode
    gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe granitemoe_swa granitemoehybrid
    granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax inkling2_text inkling_text jais2 jamba
    jetmoe kimi_linear kolibri1 laguna lfm2 lfm2_moe lfm3 llama llama4_text longcat_flash mamba mamba2 mellum
    mimo_v2_flash minicpm3 minimax minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral
    modernbert-decoder moshi mpt nanochat nemotron nemotron_h olmo olmo2 olmo3 olmo_hybrid olmoe opt persimmon phi
    phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next recurrent_gemma rwkv
    seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma xglm xlstm youtu zamba zamba2 zaya
"""
TESTED = frozenset(_NAMES.split())
_TOKENS = 3
_FAKE_LOGGER = "torch._subclasses.fake_tensor"


def is_tested(model: Any) -> bool:
    """Whether a model's text decoder is of a class of transformers that the tests read."""
    config = model.config.get_text_config(decoder=True)
    return type(model).__module__.startswith("transformers.") and getattr(config, "model_type", None) in TESTED


def try_out(make: Callable[[], Any]) -> bool:
    """Check the decoder of the model that `make` builds; whether it could be run. LayoutError: see the module.

    Let it be in bfloat16: some kernels for experts take nothing else.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    with torch.device("meta"):
        model = make().eval()
    layout = find_layout(model)
    steps: list[tuple[int, Tensor]] = []
    for number, module in enumerate((*layout.blocks, layout.final_norm)):
        module.register_forward_hook(lambda _m, _i, out, n=number: steps.append((n, hidden_of(out))))
    with _silent(), FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True), torch.no_grad():
        _without_values(model)
        try:
            out = layout.decoder(input_ids=torch.zeros(1, _TOKENS, dtype=torch.long), use_cache=False)
        except Exception:  # code that is not ours, on tensors that it does not expect
            return False
    _check(type(model).__name__, layout, steps, out)
    return True


def _without_values(model: nn.Module) -> None:
    """Put tensors on a device in place of those on the meta device: code that looks at a device finds a usual one."""
    made: dict[Tensor, Any] = {}

    def like(tensor: Tensor) -> Any:
        if tensor not in made:
            empty = torch.empty_like(tensor, device="cpu")
            made[tensor] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
        return made[tensor]

    for module in model.modules():
        for held in (module._parameters, module._buffers):
            held.update({name: like(tensor) for name, tensor in held.items() if tensor is not None})


def _check(name: str, layout: Layout, steps: list[tuple[int, Tensor]], out: Any) -> None:
    norm = layout.n_blocks
    run = [number for number, _ in steps if number != norm]
    if run != list(range(norm)):
        missing = sorted(set(range(norm)) - set(run))
        how = f"block {missing[0]} is not run on text" if missing else "blocks are run more than once, or out of order"
        raise LayoutError(f"{name}: looked for {norm} blocks that are run one after another; found: {how}")
    wanted = (1, _TOKENS, layout.width)
    for number, hidden in ((n, x) for n, x in steps if n != norm):
        one = hidden if layout.stream is None else hidden[layout.stream]
        if tuple(one.shape) != wanted:
            raise LayoutError(
                f"{name}: looked for blocks that return the residual stream, (rows, tokens, width) = "
                f"{wanted}; found: block {number} returns {tuple(hidden.shape)}"
            )
    behind = [hidden for number, hidden in steps[-1:] if number == norm]
    last = getattr(out, "last_hidden_state", None)
    if last is None:
        last = hidden_of(out)
    if not behind or not _same(behind[0], last):
        raise LayoutError(
            f"{name}: looked for a final norm behind the last block, whose output the decoder returns; found: "
            f"{'something comes after it' if behind else 'none that is run there'}"
        )


def _same(norm: Tensor, last: Tensor) -> bool:
    """Whether one is the other, be it in another shape (GPT-2) or another number format."""
    converted = norm.dtype != last.dtype and norm.shape == last.shape
    return converted or norm.untyped_storage()._cdata == last.untyped_storage()._cdata


@contextmanager
def _silent() -> Iterator[None]:
    logger = logging.getLogger(_FAKE_LOGGER)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
