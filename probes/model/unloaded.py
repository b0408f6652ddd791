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

from probes.model import lora
from probes.model.adapters import AdapterSpec
from probes.model.checkpoint import on_meta
from probes.model.control_tokens import SpecialTokens
from probes.model.layout import position_limit
from probes.model.load import ChatModel, ModelIdentity, open_files, wrap
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
    files = open_files(name, state, chat_template, trust_remote_code=trust_remote_code, progress=progress)
    for spec in adapters:
        spec.check_files()
        lora.check_made_for(spec.folder, files.short, files.revision)
    model = on_meta(files.checkpoint.config, trust_remote_code=trust_remote_code)
    made = wrap(model, files.tokenizer, name=files.short, revision=files.revision, special_tokens=special_tokens)
    return UnloadedChat(
        model=made.model,
        tokenizer=made.tokenizer,
        name=made.name,
        revision=made.revision,
        layout=made.layout,
        adapters={spec.name: spec for spec in adapters},
        active=adapters[0].name if adapters else None,
        special_tokens=special_tokens,
        weights_sha256=files.weights_sha256(state),
        source=files.source,
        engine=engine,
        numbers=pick_dtype(dtype, place),
        place=place,
    )
