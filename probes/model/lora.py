"""Adapters on a model's weights, with what PEFT does not check, and their strength.

Contract: `check_base` refuses an adapter that was made for another base by what its files say, `attach` one that PEFT
cannot place whole, and `check_read` one that acts only through PEFT's own call of the model (prompt and prefix tuning,
routers over several adapters): awry runs the decoder inside, which would read the base model. `set_scale` changes the
strength of a loaded one. All raise ModelError.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probes.errors import ModelError
from probes.model.layout import Layout

# A few token ids that every vocabulary has.
_SAMPLE = tuple(range(1, 9))


def check_base(folder: Path, model: str, revision: str) -> None:
    """Refuse an adapter whose manifest or config names another base, or whose type is never read."""
    _check_type(folder, read_config(folder))
    check_made_for(folder, model, revision)


def check_made_for(folder: Path, model: str, revision: str) -> None:
    """Refuse an adapter whose manifest or config names another base. Needs no PEFT."""
    config = read_config(folder)
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


def read_config(folder: Path) -> dict[str, Any]:
    """PEFT's config of an adapter."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
    except ValueError as error:
        raise ModelError(f"adapter: {folder / 'adapter_config.json'} is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise ModelError(f"adapter: {folder / 'adapter_config.json'} is not a JSON object")
    return config


def _check_type(folder: Path, config: dict[str, Any]) -> None:
    from peft import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = str(config.get("peft_type"))
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ModelError(f"adapter: {folder.name} is of the type {kind}, which the installed PEFT does not know")
    if issubclass(PEFT_TYPE_TO_CONFIG_MAPPING[kind], PromptLearningConfig):
        raise _not_read(folder, kind)
    if config.get("alora_invocation_tokens"):
        raise _not_read(folder, "activated LoRA")


def _not_read(folder: Path, kind: str) -> ModelError:
    return ModelError(
        f"adapter: {folder.name} ({kind}) acts by PEFT's own call of the model and not in the layers alone, and awry "
        "runs the decoder inside: its scores would not be those of the tuned model; use one in the layers, such as "
        "LoRA, or a merged checkpoint"
    )


def attach(onto: nn.Module, folder: Path, name: str, *, model: str, beside: bool) -> Any:
    """The model with the adapter on it, `beside` those that are there; all of its layers found their place."""
    from peft import PeftModel

    with warnings.catch_warnings():
        # Layers that were left out of memory get their part of the adapter there too.
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter", category=UserWarning)
        try:
            if beside:
                loaded: Any = onto
                loaded.load_adapter(str(folder), adapter_name=name)
            else:
                loaded = PeftModel.from_pretrained(onto, str(folder), adapter_name=name)
        except Exception as error:  # whatever a file of others makes PEFT raise
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"adapter: {folder.name} does not fit {model}; it was trained on another base? ({first[:200]})"
            ) from error
    _check_complete(loaded, folder, name, model)
    return loaded


def _check_complete(loaded: nn.Module, folder: Path, adapter: str, model: str) -> None:
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


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """Raised at the block that is compared."""


def check_read(loaded: nn.Module, layout: Layout, folder: Path) -> None:
    """Refuse an adapter that does less when the decoder is run by itself than when PEFT runs the model."""
    config = read_config(folder)
    if config.get("peft_type") == "LORA":
        return  # acts in the layers alone
    at = next(block for block in reversed(layout.blocks) if not any(p.is_meta for p in block.parameters()))
    ids = torch.tensor([_SAMPLE], device=next(p for p in layout.decoder.parameters() if not p.is_meta).device)
    whole, inside = (_output(at, run, ids) for run in (loaded, layout.decoder))
    if whole is None or inside is None or whole.shape != inside.shape or not torch.equal(whole, inside):
        raise _not_read(folder, str(config.get("peft_type")))


def _output(at: nn.Module, run: nn.Module, ids: Tensor) -> Tensor | None:
    """What a block gives when a module is run; the pass ends there."""
    seen: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)
        raise _Enough

    handle = at.register_forward_hook(hook)
    try:
        with torch.inference_mode():
            run(input_ids=ids)
    except _Enough:
        pass
    finally:
        handle.remove()
    return seen[0] if seen else None


def set_scale(loaded: nn.Module, adapter: str, scale: float) -> None:
    """Multiply what a LoRA adapter adds."""
    from peft.tuners.lora import LoraLayer

    layers = [m for m in loaded.modules() if isinstance(m, LoraLayer) and adapter in m.scaling]
    if not layers and scale != 1.0:
        raise ModelError(f"scale: only LoRA adapters can be scaled, and {adapter} is none")
    for layer in layers:
        layer.set_scale(adapter, scale)


def merge(loaded: nn.Module) -> bool:
    """Add the adapter in use to the weights, so that it costs nothing at each pass; whether its type can be. PEFT takes
    it out again by itself where it is switched off or another one is switched on."""
    if getattr(loaded.config, "quantization_config", None) is not None:
        # Adding to weights of 4 or 8 bits rounds the adapter away.
        return False
    try:
        loaded.merge_adapter()  # type: ignore[operator]
    except (NotImplementedError, ValueError, RuntimeError, TypeError, AttributeError):
        loaded.unmerge_adapter()  # type: ignore[operator]
        return False
    return True
