"""On which devices a model runs and in which numbers, by the settings' words. Raises ModelError naming the setting."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from probes.errors import ModelError


def pick_device(device: str) -> torch.device:
    """The device, once something was put on it."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without it
        first = str(error).splitlines()[0][:200]
        raise ModelError(f"device: {device!r} is not here ({first}); write auto, cpu, cuda or cuda:1") from None
    return place


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is float32 on a CPU and bfloat16 elsewhere."""
    if dtype == "auto":
        # Measured on a CPU without AMX: bfloat16 is 7 times slower than float32.
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    named = getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ModelError(f"dtype: {dtype!r} is none of float32, bfloat16, float16, auto")
    return named


QUANTIZATIONS = ("bitsandbytes-4bit", "bitsandbytes-8bit", "fp8")
# transformers' own ways to fill several devices.
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def loading_options(
    *, device: str, dtype: str, device_map: str | None, quantization: str | None, offload: Path
) -> dict[str, Any]:
    """What `from_pretrained` is told of devices and numbers; `offload` is for the weights that a map puts on disk."""
    place = pick_device(device)
    numbers = pick_dtype(dtype, place)
    options: dict[str, Any] = {"dtype": numbers, "device_map": {"": place}}
    if device_map is not None:
        if device != "auto":
            raise ModelError("device_map: the setting device is set as well; give one of them")
        options |= {"device_map": read_device_map(device_map), "offload_folder": str(offload)}
    if quantization is not None:
        options["quantization_config"] = _quantization(quantization, numbers)
    return options


def read_device_map(text: str) -> str | dict[str, Any]:
    """One of transformers' words, or a JSON object of modules and devices."""
    if text in DEVICE_MAPS:
        return text
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found or not all(isinstance(v, str | int) for v in found.values()):
        raise ModelError(
            f'device_map: write one of {", ".join(DEVICE_MAPS)}, or a JSON object such as {{"model.embed_tokens": 0, '
            '"model.layers.0": 0, "model.norm": "cpu"}'
        )
    return found


def _quantization(name: str, numbers: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig, FineGrainedFP8Config

    made: dict[str, Callable[[], Any]] = {
        "bitsandbytes-4bit": lambda: BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=numbers
        ),
        "bitsandbytes-8bit": lambda: BitsAndBytesConfig(load_in_8bit=True),
        "fp8": FineGrainedFP8Config,
    }
    if name not in made:
        raise ModelError(f"quantization: {name!r} is none of {', '.join(QUANTIZATIONS)}")
    return made[name]()


def numbers_of(model: Any, dtype: torch.dtype) -> str:
    """In which numbers a model computes, for people and for what must be told apart: `bfloat16`, or
    `bfloat16, bitsandbytes 4 bit` where its weights are quantised."""
    plain = str(dtype).removeprefix("torch.")
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return plain
    said = config if isinstance(config, dict) else config.to_dict()
    method = getattr(said.get("quant_method"), "value", said.get("quant_method"))
    bits = said.get("bits") or (4 if said.get("load_in_4bit") else 8 if said.get("load_in_8bit") else None)
    return f"{plain}, {method} {bits} bit" if bits else f"{plain}, {method}"
