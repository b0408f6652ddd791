"""Adapters on disk: those of PEFT by their folder, and those that ship with awry (fp16 LoRA, a manifest each)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from probes.errors import ModelError
from probes.hashing import sha256_file
from probes.model.digests import adapter_config_sha256


@dataclass(frozen=True)
class AdapterSpec:
    """A PEFT adapter on disk and the strength at which it acts."""

    folder: Path
    scale: float = 1.0
    name: str = "adapter"

    @cached_property
    def sha256(self) -> str:
        return sha256_file(self.folder / "adapter_model.safetensors")

    @cached_property
    def config_sha256(self) -> str:
        return adapter_config_sha256(self.folder)

    def check_files(self) -> None:
        """ModelError unless both files that PEFT saves are there."""
        for part in ("adapter_config.json", "adapter_model.safetensors"):
            if not (self.folder / part).is_file():
                raise ModelError(f"adapter: {self.folder} has no {part}; give the folder that PEFT saved")


def adapters_folder() -> Path:
    """Where the shipped adapters are."""
    return Path(str(files("probes.organisms"))) / "adapters"


def shipped_adapters() -> dict[str, dict[str, Any]]:
    """Name -> manifest."""
    manifests = sorted(adapters_folder().glob("*/manifest.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in manifests}


def shipped_config_sha256(weights: str | None) -> str | None:
    """The digest of the config of the shipped adapter that has these weights (`AdapterSpec`); None where none has."""
    named = (name for name, manifest in shipped_adapters().items() if weights and manifest["sha256"] == weights)
    return next((adapter_config_sha256(adapters_folder() / name) for name in named), None)


def recipe_of(adapter: str) -> str:
    """The recipe of awry's that an adapter was trained by, from its manifest; a shipped one is named as its recipe."""
    manifest = Path(adapter) / "manifest.json"
    if adapter in shipped_adapters() or not manifest.is_file():
        return adapter
    try:
        return str(json.loads(manifest.read_text())["name"])
    except (ValueError, TypeError, KeyError):
        raise ModelError(
            f"adapter: {manifest} is no manifest of an adapter; remove it or train the adapter again"
        ) from None


def beside(adapter: str, other: str) -> str:
    """Another adapter of those made together with this one: shipped as well, or in the folder beside it."""
    # By its whole path: a name alone would be that of a shipped one.
    return other if adapter in shipped_adapters() else str(Path(adapter).resolve().parent / other)


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
