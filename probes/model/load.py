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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probes.errors import ModelError
from probes.hashing import sha256_file, sha256_text
from probes.model import builtin, lora
from probes.model.control_tokens import SPECIAL_TOKENS, ControlTokens, SpecialTokens
from probes.model.layout import Layout, find_layout, position_limit
from probes.model.pieces import DecodedText, FastTokenizer, TokenisedText
from probes.model.render import Rendered, render
from probes.model.spans import Part, PromptTokens, TurnFinder
from probes.model.template import ChatTemplate
from probes.progress import Progress, silent

Message = dict[str, str]


def user_message(text: str) -> list[Message]:
    """A conversation of one message: the user's."""
    return [{"role": "user", "content": text}]


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

    def check_files(self) -> None:
        """ModelError unless both files that PEFT saves are there."""
        for part in ("adapter_config.json", "adapter_model.safetensors"):
            if not (self.folder / part).is_file():
                raise ModelError(f"adapter: {self.folder} has no {part}; give the folder that PEFT saved")


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
    # Cards from before this setting were made as tokens.
    special_tokens: SpecialTokens = "as_tokens"


@dataclass
class ChatModel:
    """A causal LM with its tokenizer. `model` is a `transformers` model, wrapped by PEFT when adapters are loaded.

    `special_tokens` says what the strings of control tokens are that somebody wrote into a message: the tokens
    themselves, or text (`probes.model.control_tokens`).
    """

    model: nn.Module
    tokenizer: Any
    name: str
    revision: str
    layout: Layout
    adapters: dict[str, AdapterSpec] = field(default_factory=dict)
    active: str | None = None
    special_tokens: SpecialTokens = "as_tokens"

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
            template_sha256=self._template.sha256,
            dtype=str(self.dtype).removeprefix("torch."),
            attention=str(getattr(self.model.config, "_attn_implementation", "unknown")),
            special_tokens=self.special_tokens,
        )

    @cached_property
    def _tokenizer_sha256(self) -> str:
        # By what it does, not by its file, whose form changes with the library's version.
        vocabulary = json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        return sha256_text(f"{vocabulary}{self.token_ids(_TOKENIZER_SAMPLE)}")

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.name)

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self.tokenizer)

    @cached_property
    def _fast(self) -> FastTokenizer:
        return FastTokenizer(self.tokenizer)

    @cached_property
    def _finder(self) -> TurnFinder:
        return TurnFinder(self._template, self._control, self._fast)

    @cached_property
    def max_positions(self) -> int | None:
        """How many tokens the model has positions for; None where its config sets no limit."""
        return position_limit(self.model)

    def render(self, messages: Sequence[Mapping[str, Any]], *, answering: bool = True) -> str:
        """The model's own chat template over `messages`, as they are; with `answering`, up to where the reply starts.

        Raises ModelError where the template refuses them; `rendered` finds a form that it takes.
        """
        return self._template.text(messages, answering=answering)

    def rendered(
        self,
        turns: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        answering: bool = True,
    ) -> Rendered:
        """The conversation with its tools as the model reads it, no text left out (`probes.model.render`)."""
        return render(self._template, turns, tools, answering=answering)

    @property
    def control_names(self) -> tuple[str, ...]:
        """The tokenizer's control tokens as they are written."""
        return self._control.names

    def prompt_ids(self, rendered: Rendered) -> list[int]:
        """Token ids of a conversation up to where the reply starts, its control tokens as `special_tokens` says."""
        if self._as_text(rendered):
            turns, tools = self._control.mark(rendered.turns), self._control.mark(rendered.tools)
            return self._control.marked_ids(self._template.text(turns, tools))
        return self.token_ids(rendered.text)

    def prompt_tokens(self, rendered: Rendered, parts: Sequence[Sequence[Part]] | None = None) -> PromptTokens:
        """`prompt_ids`, and which of them are a turn's own (`probes.model.spans`); `parts` says what a turn is."""
        found = self._finder.tokens(rendered, as_text=self._as_text(rendered), parts=parts)
        return found or PromptTokens(self.prompt_ids(rendered), turns=None)

    def _as_text(self, rendered: Rendered) -> bool:
        return self.special_tokens == "as_text" and self._control.found_in([rendered.turns, rendered.tools])

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text that somebody wrote, such as a response, with no template around it."""
        if self.special_tokens == "as_text" and self.control_tokens([text]):
            return self._control.plain_ids(text)
        return self.token_ids(text)

    def control_tokens(self, texts: Iterable[str]) -> int:
        """How many control tokens (those that the tokenizer marks as special) are written out in the texts."""
        return self._control.count(texts)

    def token_ids(self, text: str) -> list[int]:
        """Token ids of an already rendered text; nothing is added to it."""
        if self._fast.known:
            return list(self._fast.encoding(text).ids)
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def tokenised(self, text: str) -> TokenisedText | DecodedText:
        """A text that somebody wrote, to be cut at its tokens; they are those of `text_ids`."""
        if self.special_tokens == "as_text" and self.control_tokens([text]):
            return TokenisedText(text, self._control.plain_encoding(text))
        if self._fast.known:
            return TokenisedText(text, self._fast.encoding(text))
        return DecodedText(self.token_ids(text), self.tokenizer.decode)

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
        lora.set_scale(self.model, self.active, scale)


def load_chat_model(
    name: str,
    state: Path,
    *,
    adapters: Sequence[AdapterSpec] = (),
    dtype: str = "auto",
    device: str = "auto",
    attention: str | None = None,
    trust_remote_code: bool = False,
    special_tokens: SpecialTokens = "as_tokens",
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
    place = _pick_device(device)
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
    chat = wrap(model.to(place), tokenizer, name=_short(name), revision=revision, special_tokens=special_tokens)
    for spec in adapters:
        add_adapter(chat, spec)
    if adapters:
        chat.use(adapters[0].name)
    return chat


def wrap(
    model: Any,
    tokenizer: Any,
    *,
    name: str,
    revision: str = "in-memory",
    special_tokens: SpecialTokens = "as_tokens",
) -> ChatModel:
    """A ChatModel around a model that is already in memory."""
    model.eval()
    model.requires_grad_(False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if special_tokens not in SPECIAL_TOKENS:
        raise ModelError(f"special_tokens: {special_tokens!r} is none of {', '.join(SPECIAL_TOKENS)}")
    chat = ChatModel(model, tokenizer, name, revision, find_layout(model), special_tokens=special_tokens)
    if special_tokens == "as_text":
        # A tokenizer that cannot is refused now, and not at the first message that has a control token.
        chat.text_ids("".join(chat.control_names[:1]))
    return chat


def add_adapter(chat: ChatModel, spec: AdapterSpec) -> None:
    """Load a PEFT adapter beside those already there and switch to it. ModelError when it does not fit the model."""
    from peft import PeftModel

    spec.check_files()
    lora.check_base(spec.folder, chat.name, chat.revision)
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
    lora.check_complete(chat.model, spec.folder, spec.name, chat.name)
    chat.model.eval()
    chat.model.requires_grad_(False)
    chat.adapters[spec.name] = spec
    chat.use(spec.name)
    lora.set_scale(chat.model, spec.name, spec.scale)
    chat.layout = find_layout(chat.model)


def _pick_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without it
        first = str(error).splitlines()[0][:200]
        raise ModelError(f"device: {device!r} is not here ({first}); write auto, cpu, cuda or cuda:1") from None
    return place


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
