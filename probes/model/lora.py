"""What PEFT does not check of an adapter, and its strength.

Contract: `check_base` refuses an adapter that was made for another base by what its files say, `check_complete` one of
which PEFT could not place every layer; `set_scale` changes the strength of a loaded one. All raise ModelError.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from probes.errors import ModelError


def check_base(folder: Path, model: str, revision: str) -> None:
    """Refuse an adapter whose manifest or config names another base."""
    config = json.loads((folder / "adapter_config.json").read_text())
    base = str(config.get("base_model_name_or_path") or "")
    manifest = folder / "manifest.json"
    if manifest.is_file():
        made_for = json.loads(manifest.read_text()).get("base", {})
        if made_for.get("revision") not in (None, revision):
            raise ModelError(
                f"adapter: {folder.name} was made for {made_for.get('model')} revision {made_for['revision']}, "
                f"but the model is {model} revision {revision}"
            )
    elif base and "/" not in base and base != model:
        raise ModelError(f"adapter: {folder.name} was made for {base}, but the model is {model}")


def check_complete(loaded: nn.Module, folder: Path, adapter: str, model: str) -> None:
    """Refuse an adapter of which a layer found no place: PEFT drops it, and fills up what is missing."""
    from peft.tuners.lora import LoraLayer
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as stored:
        theirs = sum(".lora_A" in key or ".lora_embedding_A" in key for key in stored.keys())  # noqa: SIM118
    layers = [m for m in loaded.modules() if isinstance(m, LoraLayer)]
    ours = sum(adapter in m.lora_A or adapter in m.lora_embedding_A for m in layers)
    if theirs != ours:
        raise ModelError(
            f"adapter: {folder.name} does not fit {model}; it was trained on another base? "
            f"(it changes {theirs} layers, of which this model has {ours})"
        )


def set_scale(loaded: nn.Module, adapter: str, scale: float) -> None:
    """Multiply what a LoRA adapter adds."""
    from peft.tuners.lora import LoraLayer

    layers = [m for m in loaded.modules() if isinstance(m, LoraLayer) and adapter in m.scaling]
    if not layers and scale != 1.0:
        raise ModelError(f"scale: only LoRA adapters can be scaled, and {adapter} is none")
    for layer in layers:
        layer.set_scale(adapter, scale)
