"""Research code to compare with: `transformers` and hooks, nnsight, TransformerLens, each as its quick start does it.

Contract: each function gives a Path that reads the last prompt token at `final` and at all heads, or raises
Unavailable with the reason. All three compute logits, as their quick starts do. nnsight and TransformerLens load their
own copy of the weights from the same folder, so that nothing they leave on a model reaches another row.

Does not know: remote execution, models that must be fetched. The two libraries are the optional extra `bench`.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path as Folder

import torch

from benchmarks.paths import Path, Reading, as_heads, last_prompt, with_transformers
from probes.capture.batches import Batch
from probes.model.load import ChatModel

_HOW = "install the extra: uv pip install 'awry[bench]'"


class Unavailable(Exception):  # noqa: N818 - a reason to print, not a failure of the benchmark
    """A library is not installed or does not load the model."""


def transformers_path(chat: ChatModel) -> Path:
    """`output_hidden_states=True`, and a hook on every o_proj that keeps its input."""
    note = "output_hidden_states and a hook on every o_proj"
    return Path("c", "transformers", lambda batch: with_transformers(chat, batch), note=note)


def nnsight_path(chat: ChatModel, folder: Folder) -> Path:
    """A trace that saves the wanted tokens of every o_proj's input and of the final norm's output."""
    try:
        import nnsight
        from nnsight import TransformersModel
    except ImportError as error:
        raise Unavailable(_missing("nnsight", error)) from error
    try:
        model = TransformersModel(str(folder), task="text-generation", dtype=torch.float32, dispatch=True)
    except Exception as error:
        raise Unavailable(_refused("nnsight", error)) from error
    blocks = range(chat.layout.n_blocks)

    def step(batch: Batch) -> Reading:
        at = last_prompt(batch)
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
        with torch.inference_mode():
            with model.trace(inputs):
                heads = nnsight.save([])
                for block in blocks:
                    heads.append(model.model.layers[block].self_attn.o_proj.input[at])
                final = model.model.norm.output[at].save()
            return Reading(final, as_heads(chat, torch.stack(list(heads), 1)))

    return Path("d", "nnsight", step, note=f"{version('nnsight')}, one trace a batch")


def lens_path(chat: ChatModel, folder: Folder) -> Path:
    """`run_with_cache` with a names filter for `hook_z` of every block and the final norm."""
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError as error:
        raise Unavailable(_missing("transformer-lens", error)) from error
    try:
        bridge = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)
    except Exception as error:
        raise Unavailable(_refused("transformer-lens", error)) from error
    heads = [f"blocks.{block}.attn.hook_z" for block in range(chat.layout.n_blocks)]
    final = "ln_final.hook_out"
    wanted = {*heads, final}

    def step(batch: Batch) -> Reading:
        at = last_prompt(batch)
        with torch.inference_mode():
            _, cache = bridge.run_with_cache(
                batch.ids, attention_mask=batch.mask.long(), names_filter=lambda name: name in wanted
            )
            return Reading(cache[final][at], torch.stack([cache[name][at] for name in heads], 1))

    return Path("e", "TransformerLens", step, note=f"{version('transformer-lens')}, run_with_cache; eager attention")


def _missing(library: str, error: ImportError) -> str:
    # A library that is there but does not import (a dependency's version) must not pass for one that is not there.
    named = (error.name or "").split(".")[0] == library.replace("-", "_")
    return f"not installed; {_HOW}" if named else f"does not import: {_first(error)}"


def _refused(library: str, error: Exception) -> str:
    return f"{library} {version(library)} does not load the model from its folder: {_first(error)}"


def _first(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
