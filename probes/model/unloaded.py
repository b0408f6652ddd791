"""A chat model without its weights: what another engine's scoring needs of it here.

Contract: `open_unloaded(...)` gives a `ChatModel` that renders, tokenises, knows its layout and is identified (weights
and adapter by their files' digests) like one that is loaded, with its modules on PyTorch's meta device: it cannot be
run. `source` is the folder or hub id that the engine loads. Raises ModelError like `load_chat_model`.

An engine that answers needs a position for what it answers: a message may have one token less than the model has
positions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from probes.model import builtin, lora
from probes.model.adapters import AdapterSpec
from probes.model.checkpoint import inspect, on_meta, open_tokenizer
from probes.model.control_tokens import SpecialTokens
from probes.model.digests import weights_sha256
from probes.model.layout import position_limit
from probes.model.load import ChatModel, ModelIdentity, short_name, wrap
from probes.model.numerics import pick_device, pick_dtype
from probes.progress import Progress, silent


@dataclass
class UnloadedChat(ChatModel):
    """See the module. `numbers` and `place` are those in which and where the engine computes."""

    source: str = ""
    engine: str = ""
    numbers: torch.dtype = torch.float32
    place: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def device(self) -> torch.device:
        return self.place

    @property
    def dtype(self) -> torch.dtype:
        return self.numbers

    @property
    def identity(self) -> ModelIdentity:
        return replace(super().identity, attention=self.engine)

    @cached_property
    def max_positions(self) -> int | None:
        limit = position_limit(self.model)
        return None if limit is None else limit - 1


def open_unloaded(
    name: str,
    state: Path,
    *,
    engine: str,
    adapters: Sequence[AdapterSpec] = (),
    dtype: str = "auto",
    trust_remote_code: bool = False,
    special_tokens: SpecialTokens = "as_tokens",
    chat_template: str | None = None,
    progress: Progress = silent,
) -> UnloadedChat:
    """See the module; the arguments are those of `load_chat_model`. At most one adapter acts, the first."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    place = pick_device("auto")
    source = builtin.resolve(name, state, progress)
    short = short_name(name)
    tokenizer = open_tokenizer(source, name=short, template=chat_template, trust_remote_code=trust_remote_code)
    checkpoint = inspect(source, name=name, trust_remote_code=trust_remote_code)
    folder = Path(source) if Path(source).is_dir() else None
    revision = builtin.fingerprint(folder) if folder else str(checkpoint.config._commit_hash or "unknown")
    for spec in adapters:
        spec.check_files()
        lora.check_made_for(spec.folder, short, revision)
    model = on_meta(checkpoint.config, trust_remote_code=trust_remote_code)
    made = wrap(model, tokenizer, name=short, revision=revision, special_tokens=special_tokens)
    return UnloadedChat(
        model=made.model,
        tokenizer=made.tokenizer,
        name=made.name,
        revision=made.revision,
        layout=made.layout,
        adapters={spec.name: spec for spec in adapters},
        active=adapters[0].name if adapters else None,
        special_tokens=special_tokens,
        weights_sha256=weights_sha256(folder, state / builtin.DIGESTS) if folder else None,
        source=source,
        engine=engine,
        numbers=pick_dtype(dtype, place),
        place=place,
    )
