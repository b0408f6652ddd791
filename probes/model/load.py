"""One loaded chat model: weights, tokenizer, chat template, adapters switched on and off on the same weights.

Contract: `load_chat_model` returns a `ChatModel` in eval mode with gradients off. An adapter is loaded with PEFT and
its output multiplied by `scale` (the strength that its manifest names); `chat.base()` is a context in which no
adapter acts. `identity` says what a probe must match.

Does not know: batching, capture, steering.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probes.errors import ModelError
from probes.hashing import sha256_file, sha256_text
from probes.model import builtin
from probes.model.layout import Layout, find_layout
from probes.progress import Progress, silent

Message = dict[str, str]


def user_message(text: str) -> list[Message]:
    """A conversation of one message: the user's."""
    return [{"role": "user", "content": text}]


# The template is rendered with this date, so that templates that print today's (Llama 3.2) score alike every day.
_TEMPLATE_DATE = "01 Jan 2026"
_TOKENIZER_SAMPLE = "Two  words, naïve café №5\n\tdef f(x): return x**2 -- 'don't' 12345 語言 🙂"


@dataclass(frozen=True)
class AdapterSpec:
    """A PEFT adapter on disk and the strength at which it acts."""

    folder: Path
    scale: float = 1.0
    name: str = "adapter"

    @cached_property
    def sha256(self) -> str:
        return sha256_file(self.folder / "adapter_model.safetensors")


@dataclass(frozen=True)
class ModelIdentity:
    """What decides a score besides the message: a probe made under one identity is refused under another."""

    model: str
    revision: str
    adapter_sha256: str | None
    adapter_scale: float | None
    tokenizer_sha256: str
    template_sha256: str
    dtype: str
    attention: str


@dataclass
class ChatModel:
    """A causal LM with its tokenizer. `model` is a `transformers` model, wrapped by PEFT when adapters are loaded."""

    model: nn.Module
    tokenizer: Any
    name: str
    revision: str
    layout: Layout
    adapters: dict[str, AdapterSpec] = field(default_factory=dict)
    active: str | None = None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def identity(self) -> ModelIdentity:
        spec = self.adapters[self.active] if self.active else None
        return ModelIdentity(
            model=self.name,
            revision=self.revision,
            adapter_sha256=spec.sha256 if spec else None,
            adapter_scale=spec.scale if spec else None,
            tokenizer_sha256=self._tokenizer_sha256,
            template_sha256=sha256_text(self.tokenizer.chat_template or ""),
            dtype=str(self.dtype).removeprefix("torch."),
            attention=str(getattr(self.model.config, "_attn_implementation", "unknown")),
        )

    @cached_property
    def _tokenizer_sha256(self) -> str:
        # By what it does, not by its file, whose form changes with the library's version.
        vocabulary = json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        return sha256_text(f"{vocabulary}{self.token_ids(_TOKENIZER_SAMPLE)}")

    def render(self, messages: Sequence[Message], *, answering: bool = True) -> str:
        """The model's own chat template over `messages`; with `answering`, up to where the reply starts."""
        if not self.tokenizer.chat_template:
            raise ModelError(f"model: {self.name} has no chat template; use an instruct model")
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=answering, date_string=_TEMPLATE_DATE
            )
        except Exception as error:  # jinja raises its own and the template's errors; none may carry prompt text
            roles = [m.get("role", "?") for m in messages]
            raise ModelError(
                f"messages: the chat template of {self.name} refused the roles {roles} ({type(error).__name__})"
            ) from None
        return text

    def token_ids(self, text: str) -> list[int]:
        """Token ids of an already rendered text; nothing is added to it."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @contextmanager
    def base(self) -> Iterator[None]:
        """Within this context no adapter acts."""
        if not self.adapters:
            yield
            return
        previous = self.active
        self.active = None
        try:
            with self.model.disable_adapter():  # type: ignore[operator]
                yield
        finally:
            self.active = previous
            self.model.requires_grad_(False)  # PEFT makes the adapter trainable when it switches it on again

    def use(self, adapter: str) -> None:
        """Switch to another loaded adapter."""
        if adapter not in self.adapters:
            raise ModelError(f"adapter: {adapter!r} is not loaded; loaded: {', '.join(self.adapters) or 'none'}")
        self.model.set_adapter(adapter, inference_mode=True)  # type: ignore[operator]
        self.active = adapter

    def set_scale(self, scale: float) -> None:
        """Change the strength of the adapter in use."""
        if self.active is None:
            raise ModelError("scale: no adapter is in use")
        spec = self.adapters[self.active]
        self.adapters[self.active] = AdapterSpec(spec.folder, scale, spec.name)
        _set_scale(self.model, self.active, scale)


def load_chat_model(
    name: str,
    state: Path,
    *,
    adapters: Sequence[AdapterSpec] = (),
    dtype: str = "auto",
    device: str = "auto",
    attention: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress = silent,
) -> ChatModel:
    """Load a model (built-in name, folder or hub id) and its adapters; the first adapter is switched on.

    dtype `auto` is float32 on a CPU and bfloat16 on an accelerator. Raises ModelError.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    # transformers warns of its own attribute whenever PEFT switches an adapter.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    place = torch.device(_pick_device(device))
    numbers = _pick_dtype(dtype, place)
    source = builtin.resolve(name, state, progress)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        if attention:
            options["attn_implementation"] = attention
        model = AutoModelForCausalLM.from_pretrained(source, dtype=numbers, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(_cannot_load(name, error)) from error
    if Path(source).is_dir():
        revision = builtin.fingerprint(Path(source))
    else:
        revision = str(getattr(model.config, "_commit_hash", None) or "unknown")
    chat = wrap(model.to(place), tokenizer, name=_short(name), revision=revision)
    for spec in adapters:
        add_adapter(chat, spec)
    if adapters:
        chat.use(adapters[0].name)
    return chat


def wrap(model: Any, tokenizer: Any, *, name: str, revision: str = "in-memory") -> ChatModel:
    """A ChatModel around a model that is already in memory."""
    model.eval()
    model.requires_grad_(False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return ChatModel(model, tokenizer, name, revision, find_layout(model))


def add_adapter(chat: ChatModel, spec: AdapterSpec) -> None:
    """Load a PEFT adapter beside those already there and switch to it. ModelError when it does not fit the model."""
    from peft import PeftModel

    for part in ("adapter_config.json", "adapter_model.safetensors"):
        if not (spec.folder / part).is_file():
            raise ModelError(f"adapter: {spec.folder} has no {part}; give the folder that PEFT saved")
    _check_base(chat, spec)
    try:
        if chat.adapters:
            chat.model.load_adapter(str(spec.folder), adapter_name=spec.name)  # type: ignore[operator]
        else:
            chat.model = PeftModel.from_pretrained(chat.model, str(spec.folder), adapter_name=spec.name)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"adapter: {spec.folder.name} does not fit {chat.name}; it was trained on another base? ({first[:200]})"
        ) from error
    _check_complete(chat, spec)
    chat.model.eval()
    chat.model.requires_grad_(False)
    chat.adapters[spec.name] = spec
    chat.use(spec.name)
    _set_scale(chat.model, spec.name, spec.scale)
    chat.layout = find_layout(chat.model)


def _check_base(chat: ChatModel, spec: AdapterSpec) -> None:
    config = json.loads((spec.folder / "adapter_config.json").read_text())
    base = str(config.get("base_model_name_or_path") or "")
    manifest = spec.folder / "manifest.json"
    if manifest.is_file():
        made_for = json.loads(manifest.read_text()).get("base", {})
        if made_for.get("revision") not in (None, chat.revision):
            raise ModelError(
                f"adapter: {spec.folder.name} was made for {made_for.get('model')} revision {made_for['revision']}, "
                f"but the model is {chat.name} revision {chat.revision}"
            )
    elif base and "/" not in base and base != chat.name:
        raise ModelError(f"adapter: {spec.folder.name} was made for {base}, but the model is {chat.name}")


def _check_complete(chat: ChatModel, spec: AdapterSpec) -> None:
    # PEFT drops what finds no place in the model, and fills up what is missing, with a warning at most.
    from peft.tuners.lora import LoraLayer
    from safetensors import safe_open

    with safe_open(spec.folder / "adapter_model.safetensors", "pt") as stored:
        theirs = sum(".lora_A" in key or ".lora_embedding_A" in key for key in stored.keys())  # noqa: SIM118
    layers = [m for m in chat.model.modules() if isinstance(m, LoraLayer)]
    ours = sum(spec.name in m.lora_A or spec.name in m.lora_embedding_A for m in layers)
    if theirs != ours:
        raise ModelError(
            f"adapter: {spec.folder.name} does not fit {chat.name}; it was trained on another base? "
            f"(it changes {theirs} layers, of which this model has {ours})"
        )


def _set_scale(model: nn.Module, adapter: str, scale: float) -> None:
    from peft.tuners.lora import LoraLayer

    layers = [m for m in model.modules() if isinstance(m, LoraLayer) and adapter in m.scaling]
    if not layers and scale != 1.0:
        raise ModelError(f"scale: only LoRA adapters can be scaled, and {adapter} is none")
    for layer in layers:
        layer.set_scale(adapter, scale)


def _pick_device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        # Measured on a CPU without AMX: bfloat16 is 7 times slower than float32.
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    named = getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ModelError(f"dtype: {dtype!r} is none of float32, bfloat16, float16, auto")
    return named


def _cannot_load(name: str, error: Exception) -> str:
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return (
        f"model: cannot load {name!r} ({type(error).__name__}: {first}); give {builtin.SMOLLM2}, the folder of a "
        "Hugging Face checkpoint with its weights and tokenizer, or a hub id"
    )


def _short(name: str) -> str:
    return Path(name).name if Path(name).is_dir() else name
