"""What a start found out and the next one need not: kept in the state folder while nothing changed that could matter.

Contract: `StartChecks(state_dir, chat).once(name, work)` is what `work` gives (plain data), from an earlier start where
that one had the same model, weights, adapter, tokenizer and template, the same versions of the libraries and of awry's
code, and the same kind of device; `reused` says which names were. Anything else, a state folder that cannot be read or
written included, means that it is done again. What raises is not kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import torch

import probes
from probes.errors import DataError
from probes.hashing import sha256_bytes, sha256_lines
from probes.model.load import ChatModel
from probes.result_cache import ResultCache

T = TypeVar("T")

_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "accelerate", "numpy", "jinja2", "kernels")
_KEPT = 20  # models, adapters, versions


class StartChecks:
    """See the module. A model whose weights are not known by a digest is checked at each start."""

    def __init__(self, state_dir: Path, chat: ChatModel) -> None:
        self._cache: ResultCache | None = None
        self.reused: list[str] = []
        identity = asdict(chat.identity)
        if identity["weights_sha256"] is None:
            return
        folder = state_dir / "start-checks"
        with suppress(DataError, OSError):
            self._cache = ResultCache(
                folder,
                {
                    "identity": identity,
                    "libraries": {name: _version(name) for name in _LIBRARIES},
                    "code": _code(),
                    "device": _device(chat.device),
                    "places": sorted({str(p.device) for p in chat.model.parameters()}),
                },
            )
            _forget(folder, self._cache.key)

    def once(self, name: str, work: Callable[[], T]) -> T:
        """What `work` gives, or gave; numbers, texts, lists and objects, and not None."""
        if self._cache is None:
            return work()
        known: T | None = self._cache.get(name)
        if known is not None:
            self.reused.append(name)
            return known
        made = work()
        with suppress(DataError):
            self._cache.put(name, made)
        return made


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def _code() -> str:
    folder = Path(str(probes.__file__)).parent
    return sha256_lines(f"{path.name} {sha256_bytes(path.read_bytes())}" for path in folder.rglob("*.py"))


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name} {properties.major}.{properties.minor} CUDA {torch.version.cuda}"
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line for line in lines if line.startswith("model name"))
        return f"{device.type} {torch.backends.cpu.get_cpu_capability()} {model}"
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def _forget(folder: Path, key: str) -> None:
    """All but the newest, and this one."""
    with suppress(OSError):
        found = sorted((path for path in folder.iterdir() if path.name != key), key=lambda path: path.stat().st_mtime)
        for old in found[: max(0, len(found) - _KEPT + 1)]:
            shutil.rmtree(old, ignore_errors=True)
