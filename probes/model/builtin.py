"""Checkpoints on disk: names, origins, the built-in models, and a fingerprint that tells checkpoints apart.

Contract: `resolve(name, state)` turns a name into a local folder or a hub id. A GGUF file is dequantised once
(`probes.model.gguf_files`). Built-in are SmolLM2-135M-Instruct (Apache-2.0), and gemma3-270m (Gemma terms; a base
model, which gets a chat template of awry's own): made of weights that `probes.model.weights` finds, once, in about a
minute, and kept in `state/models` as fp32 safetensors. Where the weights are missing, the error says how to get them:
nothing is fetched but by `get`.

Does not know: how to download anything but what `transformers` itself fetches from a hub id.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import ModelError
from probes.model import gguf_files, weights
from probes.model.digests import VOLATILE
from probes.progress import Progress, silent

SMOLLM2, GEMMA3 = weights.SMOLLM2.model, weights.GEMMA3.model
# Of the state folder: what `probes.model.digests` remembers.
DIGESTS = "digests.json"
_BLOCK = 1 << 16
_SAMPLES = 64


@dataclass(frozen=True)
class StoredModel:
    """A model that can be loaded from a local folder."""

    name: str
    folder: Path
    bytes: int
    revision: str
    source: str
    license: str


def models_folder(state: Path) -> Path:
    return state / "models"


def resolve(name: str, state: Path, progress: Progress = silent) -> str:
    """The folder or hub id to hand to `from_pretrained`; makes the built-in model when it is not there yet."""
    if name in weights.KNOWN:
        return str(ensure(name, state, progress))
    stored = models_folder(state) / name
    if (stored / "config.json").is_file():
        return str(stored)
    gguf = gguf_files.gguf_of(Path(name))
    if gguf is not None:
        return str(gguf_files.ensure(gguf, models_folder(state), state / DIGESTS, progress))
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise ModelError(f"model: the folder {name} has no config.json; give the folder of one checkpoint")
        return str(Path(name).resolve())
    return name


def list_models(state: Path) -> list[StoredModel]:
    """The models in the state folder, by name."""
    folder = models_folder(state)
    if not folder.is_dir():
        return []
    return [_describe(path) for path in sorted(folder.iterdir()) if (path / "config.json").is_file()]


def _describe(folder: Path) -> StoredModel:
    origin: dict[str, Any] = {}
    if (folder / "origin.json").is_file():
        origin = json.loads((folder / "origin.json").read_text())
    return StoredModel(
        name=folder.name,
        folder=folder,
        bytes=sum(f.stat().st_size for f in folder.iterdir() if f.is_file()),
        revision=fingerprint(folder),
        source=str(origin.get("source", "a local folder")),
        license=str(origin.get("license", "unknown")),
    )


def licence_of(name: str, state: Path) -> str:
    """The licence that a model is under, as far as its folder or awry knows; else `unknown`."""
    if name in weights.KNOWN:
        return weights.KNOWN[name].licence
    folder = Path(resolve(name, state))
    return _describe(folder).license if (folder / "config.json").is_file() else "unknown"


def fingerprint(folder: Path) -> str:
    """16 hex digits that differ between checkpoints: the config, each weight file's size and 64 blocks of it.

    Fast on any size of model. It tells checkpoints apart; it is no proof against a forger.
    """
    config = json.loads((folder / "config.json").read_text())
    decisive = {k: v for k, v in config.items() if k not in VOLATILE}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as handle:
            for i in range(_SAMPLES):
                handle.seek(max(0, (size - _BLOCK) * i // (_SAMPLES - 1)))
                digest.update(handle.read(_BLOCK))
    return digest.hexdigest()[:16]


def get(name: str, state: Path, progress: Progress = silent, source: Path | None = None) -> Path:
    """Folder of a built-in model; weights that are missing are fetched, or taken from `source`."""
    of = weights.KNOWN[name]
    if source is not None or not (_is_made(name, state) or weights.find(of, state)):
        weights.fetch(of, state, progress, source)
    return ensure(name, state, progress)


def ensure(name: str, state: Path, progress: Progress = silent) -> Path:
    """Folder of a built-in model, made of weights that are there; the first call takes about a minute."""
    of = weights.KNOWN[name]
    target = models_folder(state) / name
    if _is_made(name, state):
        return target
    gguf = weights.find(of, state)
    if gguf is None:
        raise ModelError(
            f"model: the weights of {name} are not here (state folder {state}); run: {of.command} "
            f"({of.megabytes} MB, once; --from without a network), or give a model of your own with --model"
        )
    progress(f"dequantising {name} (once, about a minute)")
    template = own_template(name)
    with gguf_files.building(target) as folder:
        gguf_files.dequantise([gguf], folder, template.read_text() if template else None)
        origin = {
            "source": f"PyPI wheel {of.named}, file {of.gguf}, dequantised to fp32",
            "license": of.licence,
            "gguf_sha256": of.sha256,
        }
        (folder / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")
    return target


def own_template(name: str) -> Path | None:
    """The chat template of awry's own that a built-in base model gets; None where the model brings one."""
    if name not in weights.KNOWN:
        return None
    path = Path(__file__).with_name(f"{name}.jinja")
    return path if path.is_file() else None


def _is_made(name: str, state: Path) -> bool:
    return (models_folder(state) / name / "config.json").is_file()
