"""What the server runs, as probes' cards name it: the model's files, tokenizer and template, and a request's LoRA.

Contract: `Served.open(...)` reads the checkpoint's files, and loads no weights; `check(probe)` raises
ProbeMismatchError for a probe of another model, whatever adapter it was made with. `why_not(probe, lora)` says of one
request why a probe does not read it: it was made with another adapter than the one that the request runs with, or with
none.

An adapter acts in vLLM at the scale of its own `lora_alpha`. One that a probe was made with at another scale is served
from a copy with another alpha (docs/vllm.md); `adapters` then names the folder, or the shipped adapter, that it is of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.card import Probe
from probes.errors import ModelError
from probes.identity import check_base_identity
from probes.model.adapters import AdapterSpec, adapter_spec, shipped_config_sha256
from probes.model.unloaded import UnloadedChat, open_unloaded


@dataclass(frozen=True)
class _Adapter:
    sha256: str
    config_sha256: str
    scale: float


@dataclass
class Served:
    """See the module. `chat` has no weights."""

    chat: UnloadedChat
    adapters: Mapping[str, str]
    _known: dict[tuple[str, str], _Adapter | str] = field(default_factory=dict)

    @classmethod
    def open(
        cls, model: Any, *, state: Path, version: str, template: str | None, adapters: Mapping[str, str]
    ) -> Served:
        """`model` is vLLM's ModelConfig."""
        chat = open_unloaded(
            model.model,
            state,
            engine=f"vllm {version}",
            dtype=str(model.dtype).removeprefix("torch."),
            trust_remote_code=model.trust_remote_code,
            chat_template=template,
        )
        for name in adapters.values():
            adapter_spec(name)
        return cls(chat, adapters)

    def check(self, probe: Probe) -> None:
        """See the module."""
        check_base_identity(probe.card, self.chat)

    def why_not(self, probe: Probe, lora: Any) -> str | None:
        """`lora` is the request's LoRARequest, or None."""
        wanted = probe.card.identity
        if lora is None:
            return None if wanted.adapter_sha256 is None else "it was made with an adapter, and the request has none"
        if wanted.adapter_sha256 is None:
            return "it was made without an adapter, and the request runs with one"
        found = self._adapter(lora)
        if isinstance(found, str):
            return found
        if found.sha256 != wanted.adapter_sha256:
            return "it was made with another adapter than the request's"
        config = wanted.adapter_config_sha256 or shipped_config_sha256(wanted.adapter_sha256)
        if config not in (None, found.config_sha256):
            return "it was made with the request's adapter under another adapter_config.json"
        scale = 1.0 if wanted.adapter_scale is None else wanted.adapter_scale
        if abs(found.scale - scale) > 1e-6:
            return f"it was made with the request's adapter at scale {scale:g}, which acts at {found.scale:g} here"
        return None

    def _adapter(self, lora: Any) -> _Adapter | str:
        key = (str(lora.lora_name), str(lora.lora_path))
        if key not in self._known:
            self._known[key] = self._read(*key)
        return self._known[key]

    def _read(self, name: str, path: str) -> _Adapter | str:
        try:
            served = AdapterSpec(Path(path))
            served.check_files()
            own = adapter_spec(self.adapters[name], 1.0) if name in self.adapters else served
            if own.sha256 != served.sha256:
                return f"the adapter {name} is not the one that the setting adapters names"
            return _Adapter(served.sha256, own.config_sha256, _alpha(served.folder) / _alpha(own.folder))
        except (ModelError, OSError, ValueError, KeyError, ZeroDivisionError):
            return f"the files of the adapter {name} cannot be read"


def _alpha(folder: Path) -> float:
    return float(json.loads((folder / "adapter_config.json").read_text())["lora_alpha"])
