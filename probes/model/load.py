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

from probes.capture.sites import Site
from probes.errors import ModelError
from probes.hashing import sha256_text
from probes.model import builtin, lora
from probes.model.adapters import AdapterSpec as AdapterSpec  # of those who load them
from probes.model.checkpoint import Checkpoint, cannot_load, inspect, open_tokenizer
from probes.model.control_tokens import SPECIAL_TOKENS, ControlTokens, SpecialTokens
from probes.model.digests import weights_sha256
from probes.model.gguf_files import name_of
from probes.model.layout import Layout, find_layout, position_limit
from probes.model.numerics import loading_options, numbers_of
from probes.model.partial import load_part
from probes.model.pieces import DecodedText, FastTokenizer, TokenisedText
from probes.model.render import Rendered, render
from probes.model.spans import Part, PromptTokens, TurnFinder
from probes.model.template import ChatTemplate
from probes.model.vocabulary import hold_within
from probes.progress import Progress, silent

Message = dict[str, str]


def user_message(text: str) -> list[Message]:
    """A conversation of one message: the user's."""
    return [{"role": "user", "content": text}]


_TOKENIZER_SAMPLE = "Two  words, naïve café №5\n\tdef f(x): return x**2 -- 'don't' 12345 語言 🙂"


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
    # All of the weights and of what PEFT's config says; cards from before these have neither.
    weights_sha256: str | None = None
    adapter_config_sha256: str | None = None


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
    weights_sha256: str | None = None

    @property
    def device(self) -> torch.device:
        """Where token ids go: of several devices, that of the decoder's first weights."""
        return self._first.device

    @property
    def dtype(self) -> torch.dtype:
        return self._first.dtype

    @property
    def _first(self) -> nn.Parameter:
        return next(weights for weights in self.layout.decoder.parameters() if not weights.is_meta)

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
            dtype=numbers_of(self.model, self.dtype),
            attention=str(getattr(self.model.config, "_attn_implementation", "unknown")),
            special_tokens=self.special_tokens,
            weights_sha256=self.weights_sha256,
            adapter_config_sha256=spec.config_sha256 if spec else None,
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

    @property
    def condition(self) -> tuple[str, float] | None:
        """The adapter that acts and its scale; None for the base model."""
        return (self.active, self.adapters[self.active].scale) if self.active else None

    @property
    def vocabulary(self) -> int:
        """How many token ids the model has an embedding for."""
        return int(self.model.get_input_embeddings().num_embeddings)  # type: ignore[operator]

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
    device_map: str | None = None,
    quantization: str | None = None,
    trust_remote_code: bool = False,
    special_tokens: SpecialTokens = "as_tokens",
    chat_template: str | None = None,
    sites: Sequence[Site] | None = None,
    progress: Progress = silent,
) -> ChatModel:
    """Load a model (built-in name, folder, GGUF file or hub id) and its adapters; the first adapter is switched on.

    dtype `auto` is float32 on a CPU and bfloat16 on an accelerator; for the rest see `probes.model.numerics`. With
    `chat_template` (Jinja) the tokenizer's own is not used. With `sites`, all that will be read, only what they need is
    loaded (`probes.model.partial`), and nothing can be generated. Raises ModelError; that a model cannot be read, or
    has no template, is known before its weights are.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import logging

    logging.disable_progress_bar()
    # PEFT imports it where it is installed, and it warns of kernels that nothing here asks for.
    logging.get_logger("bitsandbytes").setLevel(logging.ERROR)
    # transformers warns of its own attribute whenever PEFT switches an adapter.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    options = loading_options(
        device=device, dtype=dtype, device_map=device_map, quantization=quantization, offload=state / "offload"
    )
    options["trust_remote_code"] = trust_remote_code
    files = open_files(name, state, chat_template, trust_remote_code=trust_remote_code, progress=progress)
    for spec in adapters:
        spec.check_files()
        lora.check_base(spec.folder, files.short, files.revision)
    if attention:
        options["attn_implementation"] = attention
    try:
        model = load_part(files.checkpoint, sites, **options)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(cannot_load(name, error)) from error
    chat = wrap(model, files.tokenizer, name=files.short, revision=files.revision, special_tokens=special_tokens)
    chat.weights_sha256 = files.weights_sha256(state)
    for spec in adapters:
        add_adapter(chat, spec)
    if adapters:
        chat.use(adapters[0].name)
    return chat


@dataclass(frozen=True)
class CheckpointFiles:
    """What is known of a model before its weights are read; `folder` is None for one of the hub."""

    source: str
    short: str
    tokenizer: Any
    checkpoint: Checkpoint
    folder: Path | None
    revision: str

    def weights_sha256(self, state: Path) -> str | None:
        return weights_sha256(self.folder, state / builtin.DIGESTS) if self.folder else None


def open_files(
    name: str, state: Path, chat_template: str | None, *, trust_remote_code: bool, progress: Progress
) -> CheckpointFiles:
    """ModelError where there is no such model, or it cannot be read."""
    source = builtin.resolve(name, state, progress)
    short = short_name(name)
    tokenizer = open_tokenizer(source, name=short, template=chat_template, trust_remote_code=trust_remote_code)
    checkpoint = inspect(source, name=name, trust_remote_code=trust_remote_code)
    folder = Path(source) if Path(source).is_dir() else None
    revision = builtin.fingerprint(folder) if folder else str(checkpoint.config._commit_hash or "unknown")
    return CheckpointFiles(source, short, tokenizer, checkpoint, folder, revision)


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
    hold_within(model, tokenizer, name)
    if special_tokens not in SPECIAL_TOKENS:
        raise ModelError(f"special_tokens: {special_tokens!r} is none of {', '.join(SPECIAL_TOKENS)}")
    chat = ChatModel(model, tokenizer, name, revision, find_layout(model), special_tokens=special_tokens)
    if special_tokens == "as_text":
        # A tokenizer that cannot is refused now, and not at the first message that has a control token.
        chat.text_ids("".join(chat.control_names[:1]))
    return chat


def add_adapter(chat: ChatModel, spec: AdapterSpec) -> None:
    """Load a PEFT adapter beside those already there and switch to it. ModelError when it does not fit the model."""
    spec.check_files()
    lora.check_base(spec.folder, chat.name, chat.revision)
    chat.model = lora.attach(chat.model, spec.folder, spec.name, model=chat.name, beside=bool(chat.adapters))
    chat.model.eval()
    chat.model.requires_grad_(False)
    chat.adapters[spec.name] = spec
    chat.use(spec.name)
    lora.set_scale(chat.model, spec.name, spec.scale)
    chat.layout = find_layout(chat.model)
    lora.check_read(chat.model, chat.layout, spec.folder)


def short_name(name: str) -> str:
    """The name that a model goes by: of a file or a folder its own, without the path."""
    path = Path(name)
    if path.suffix.lower() == ".gguf":
        return name_of(path)
    return path.name if path.is_dir() else name
