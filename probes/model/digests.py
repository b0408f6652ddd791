"""Digests of everything in a checkpoint or an adapter that decides a score.

Contract: `weights_sha256(folder)` is over the config and every byte of the files that transformers would load from the
folder, the code of a repository included; `adapter_config_sha256(folder)` over what PEFT's config says about how the
weights act. 64 hex digits each.

Reading takes a second or two a gigabyte, so what was read is remembered in `cache`, by each file's size, times and
inode: a file that was changed or replaced is read again. It tells checkpoints apart and is no proof against a forger.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from awry.whole_file import SHARED, whole_file
from probes.hashing import sha256_file, sha256_json, sha256_text

# What a library writes into a config about itself, not about the model.
VOLATILE = frozenset({"transformers_version", "_name_or_path", "_model_name_or_path", "torch_dtype", "dtype"})
# The same in PEFT's, and what is only used for training.
_OF_TRAINING = frozenset(
    {"base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "task_type"}
    | {"lora_dropout", "init_lora_weights", "eva_config", "corda_config", "loftq_config", "megatron_config"}
    | {"megatron_core", "ensure_weight_tying", "runtime_config"}
)
_KEPT = 2000  # files that a cache remembers


def weights_sha256(folder: Path, cache: Path | None = None) -> str:
    """Of a checkpoint's config and weights; with `cache` (a file) what is unchanged is not read again."""
    config = json.loads((folder / "config.json").read_text())
    decisive = {key: value for key, value in config.items() if key not in VOLATILE}
    digest = hashlib.sha256()
    for path in weight_files(folder):
        digest.update(f"{path.name}:{file_sha256(path, cache)}\n".encode())
    return sha256_text(f"{sha256_json(decisive)}{digest.hexdigest()}")


def file_sha256(path: Path, cache: Path | None = None) -> str:
    """Of one file; with `cache` what is unchanged is not read again."""
    state = sha256_json([str(path.resolve()), *_state(path)])
    known = _read(cache)
    digest = known.get(state)
    if not isinstance(digest, str):
        digest = sha256_file(path)
        _write(cache, dict(list(known.items())[-_KEPT:]) | {state: digest})
    return digest


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads weights (and, where the config names some, code) from, by name."""
    code = sorted(folder.glob("*.py"))
    named = json.loads((folder / "config.json").read_text()).get("transformers_weights")
    if isinstance(named, str):
        return [*_with_shards(folder / named), *code]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name, *code]
        if (folder / f"{name}.index.json").is_file():
            return [*_with_shards(folder / f"{name}.index.json"), *code]
    # Not the names that it looks for: whatever there is, so that nothing is left out.
    return sorted(path for pattern in ("*.safetensors", "*.bin", "*.gguf", "*.py") for path in folder.glob(pattern))


def adapter_config_sha256(folder: Path) -> str:
    """Of what PEFT's config says about how an adapter acts: its type, rank, alpha, modules."""
    config = json.loads((folder / "adapter_config.json").read_text())
    # What is null or empty is left out: a later PEFT writes more fields, at values that change nothing.
    decisive = {k: _sorted(v) for k, v in config.items() if k not in _OF_TRAINING and v not in (None, False, {}, [])}
    return sha256_json(decisive)


def _sorted(value: Any) -> Any:
    # PEFT writes sets as lists, in any order.
    return sorted(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else value


def _with_shards(named: Path) -> list[Path]:
    if not named.name.endswith(".index.json"):
        return [named]
    shards = set(json.loads(named.read_text())["weight_map"].values())
    return [named.parent / shard for shard in sorted(shards)]


def _state(path: Path) -> list[int]:
    at = path.stat()
    return [at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino, at.st_dev]


def _read(cache: Path | None) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(cache.read_text()) if cache is not None else {}
        return found if isinstance(found, dict) else {}
    return {}


def _write(cache: Path | None, known: dict[str, Any]) -> None:
    """At once or not at all; where the folder cannot be written, the files are read again next time."""
    if cache is None:
        return
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(cache, mode=SHARED) as file:
            file.write(json.dumps(known).encode())
