"""The adapters that ship with awry: fp16 LoRA weights, PEFT's config and a manifest each."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from probes.errors import ModelError
from probes.model.load import AdapterSpec


def adapters_folder() -> Path:
    """Where the shipped adapters are."""
    return Path(str(files("probes.organisms"))) / "adapters"


def shipped_adapters() -> dict[str, dict[str, Any]]:
    """Name -> manifest."""
    manifests = sorted(adapters_folder().glob("*/manifest.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in manifests}


def adapter_spec(name: str, scale: float | None = None) -> AdapterSpec:
    """A shipped adapter by name or any PEFT folder; the scale defaults to the manifest's, else 1.

    Raises ModelError when there is no such adapter, or its weights are not those of its manifest.
    """
    folder = adapters_folder() / name
    if not (folder / "adapter_config.json").is_file():
        folder = Path(name)
    if not folder.is_dir():
        known = ", ".join(shipped_adapters()) or "none"
        raise ModelError(f"adapter: {name!r} is neither shipped ({known}) nor a folder that PEFT saved")
    manifest_path = folder / "manifest.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.is_file() else {}
    strength = scale if scale is not None else float(manifest.get("scale", 1.0))
    spec = AdapterSpec(folder, strength, folder.name)
    spec.check_files()
    if manifest and spec.sha256 != manifest["sha256"]:
        raise ModelError(f"adapter: {folder.name}'s weights are not those of its manifest; fetch or train it again")
    return spec
