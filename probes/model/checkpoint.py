"""A checkpoint before its weights are read: its config, the class that it loads as, and whether awry can read it.

Contract: `inspect(source, ...)` needs seconds on any size: the model is built without memory (PyTorch's meta device)
and its parts are looked for (`probes.model.layout`); a class that no test covers is also run without numbers
(`probes.model.trial`). Raises ModelError, LayoutError where the parts were not found.

A model that also takes images or sound is loaded by the class that transformers has for it, and read on text.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from probes.errors import ModelError
from probes.model.layout import find_layout
from probes.model.template import ChatTemplate, TemplateRefusedError
from probes.model.trial import is_tested, try_out
from probes.model.weights import SMOLLM2

# What is asked for a class, in this order: text decoders first.
AUTO_CLASSES = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")


@dataclass(frozen=True)
class Checkpoint:
    """`source` is a folder or a hub id; `config` is that of the class, which may be a part of the checkpoint's own."""

    source: str
    config: Any
    model_class: Any


def inspect(source: str, *, name: str, trust_remote_code: bool = False) -> Checkpoint:
    """The config and class of a checkpoint whose structure awry can read."""
    _refuse_adapter(source)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        whole = on_meta(config, trust_remote_code=trust_remote_code)
        find_layout(whole)
        if not is_tested(whole):
            own = copy.deepcopy(config)
            try_out(lambda: _of_config(own, dtype=torch.bfloat16, trust_remote_code=trust_remote_code))
    except ModelError:
        raise
    except Exception as error:  # code of a library or of a model's repository, which raises what it likes
        raise ModelError(cannot_load(name, error)) from error
    return Checkpoint(source, whole.config, type(whole))


def open_tokenizer(source: str, *, name: str, template: str | None, trust_remote_code: bool) -> Any:
    """The tokenizer, with a chat template: the given one, else its own."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except Exception as error:  # the same
        raise ModelError(cannot_load(name, error)) from error
    tokenizer.chat_template = template or tokenizer.chat_template or _of_processor(source)
    try:
        ChatTemplate(tokenizer, name).check()
    except TemplateRefusedError as error:
        if template is None:
            raise
        raise ModelError(f"chat_template: the file that is given cannot be used: {error}") from None
    return tokenizer


def _of_processor(source: str) -> str | None:
    """The template of a model that takes images, where it is kept with what prepares these."""
    from transformers.utils import cached_file

    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = cached_file(source, "chat_template.json", **quiet)
    if found is None:
        return None
    try:
        template = json.loads(Path(found).read_text())["chat_template"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return template if isinstance(template, str) else None


def on_meta(config: Any, *, trust_remote_code: bool = False) -> Any:
    """A model of this config without memory. ModelError where transformers has no class for it."""
    with torch.device("meta"):
        return _of_config(config, trust_remote_code=trust_remote_code)


def _of_config(config: Any, **options: Any) -> Any:
    return _auto_class(config).from_config(config, **options)


def _auto_class(config: Any) -> Any:
    import transformers

    for name in AUTO_CLASSES:
        auto = getattr(transformers, name)
        if type(config) in auto._model_mapping or name in (getattr(config, "auto_map", None) or {}):
            return auto
    raise ModelError(
        f"model: {config.model_type!r} ({', '.join(config.architectures or ['no architecture named'])}) is none that "
        f"writes text: transformers has it in none of {', '.join(AUTO_CLASSES)}"
    )


def _refuse_adapter(source: str) -> None:
    # transformers would load what such a folder names as its base, and put the adapter on it unasked.
    config = Path(source) / "adapter_config.json"
    if not config.is_file():
        return
    try:
        base = json.loads(config.read_text()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    raise ModelError(
        f"model: {source} is an adapter; give it by --adapter, and its base ({base or 'unnamed'}) by --model"
    )


def cannot_load(name: str, error: Exception) -> str:
    """What is said of an error from below."""
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return (
        f"model: cannot load {name!r} ({type(error).__name__}: {first}); give {SMOLLM2.model}, the folder of a "
        "Hugging Face checkpoint with its weights and tokenizer, or a hub id"
    )
