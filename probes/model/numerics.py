"""On which device a model runs and in which dtype, by the settings' words. Raises ModelError naming the setting."""

from __future__ import annotations

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
