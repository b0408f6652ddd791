"""Tiny random models of many families, and a byte-level tokenizer made in code: for mechanics, never for behaviour.

Every family has 3 blocks, 4 query heads and width 32. Where the class allows it, `head_dim` is 12 and not 32 / 4, and
there are 2 key-value heads; biases and norm weights are random too, so that forgetting one shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from probes.capture.batches import Encoded
from probes.model.layout import Layout
from probes.model.load import ChatModel, wrap

N_BLOCKS, N_HEADS, N_KV, WIDTH, HEAD_DIM = 3, 4, 2, 32, 12
SPECIALS = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|image|>")
VOCAB = 256 + len(SPECIALS)
IMAGE = VOCAB - 1

TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] not in ['user', 'assistant', 'system'] %}{{ raise_exception('bad role ' + m['content']) }}"
    "{% endif %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": N_HEADS,
    "max_position_embeddings": 1024,
    "pad_token_id": 256,
    "bos_token_id": None,
    "eos_token_id": 257,
}
GROUPED: dict[str, Any] = {**_COMMON, "num_key_value_heads": N_KV, "head_dim": HEAD_DIM}
_GEMMA: dict[str, Any] = {**GROUPED, "query_pre_attn_scalar": HEAD_DIM, "sliding_window": 16}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 64,
    "max_position_embeddings": 1024,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}

# family -> (config class, model class, config values, path of the decoder's blocks, path of the decoder)
_FAMILIES: dict[str, tuple[str, str, dict[str, Any], str, str]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", GROUPED, "model.layers", "model"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", GROUPED, "model.layers", "model"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", GROUPED, "model.layers", "model"),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {**_GEMMA, "attn_implementation": "eager"},
        "model.layers",
        "model",
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {**_GEMMA, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        "model.layers",
        "model",
    ),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**GROUPED, "sliding_window": 24}, "model.layers", "model"),
    "ministral3": (
        "Ministral3Config",
        "Ministral3ForCausalLM",
        {**GROUPED, "rope_parameters": _YARN},
        "model.layers",
        "model",
    ),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {**_COMMON, "num_key_value_heads": N_KV}, "model.layers", "model"),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "vocab_size": VOCAB,
            "n_embd": WIDTH,
            "n_layer": N_BLOCKS,
            "n_head": N_HEADS,
            "n_positions": 1024,
            "bos_token_id": 257,
            "eos_token_id": 257,
        },
        "transformer.h",
        "transformer",
    ),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _COMMON, "gpt_neox.layers", "gpt_neox"),
}
FAMILIES = tuple(_FAMILIES)
MULTIMODAL = ("gemma3_vision", "mistral3_vision", "llava")
# o_proj width = heads x head_dim; these classes tie it to the width of the residual stream.
SQUARE = ("phi3", "gpt2", "gpt_neox")


def blocks_of(family: str, model: Any) -> list[Any]:
    """The family's blocks by their written path, independent of `find_layout`."""
    path = "model.language_model.layers" if family in MULTIMODAL else _FAMILIES[family][3]
    return list(model.get_submodule(path))


def decoder_of(family: str, model: Any) -> Any:
    return model.get_submodule("model.language_model" if family in MULTIMODAL else _FAMILIES[family][4])


def attention_of(block: Any) -> Any:
    for name in ("self_attn", "attn", "attention"):
        if hasattr(block, name):
            return getattr(block, name)
    raise AssertionError("this family's attention is called something else")


def projections_of(layout: Layout) -> list[Any]:
    """The output projection of each block, of a model whose blocks all have attention."""
    return [layout.heads_at(layer).projection for layer in range(layout.n_blocks)]


def tiny_model(family: str, seed: int = 0) -> Any:
    """A random model of `family` (one of FAMILIES or MULTIMODAL) in float32, eval mode."""
    if family in MULTIMODAL:
        return randomise(_MULTIMODAL[family](), seed)
    config_class, model_class, values, *_ = _FAMILIES[family]
    config = getattr(transformers, config_class)(**values)
    return randomise(getattr(transformers, model_class)(config), seed)


def _gemma3_vision() -> Any:
    text = transformers.Gemma3TextConfig(**_FAMILIES["gemma3"][2])
    vision = transformers.SiglipVisionConfig(**_VISION, vision_use_head=False)
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
        boi_token_index=IMAGE - 1,
    )
    return transformers.Gemma3ForConditionalGeneration(config)


def _pixtral() -> Any:
    # As many blocks as the text decoder, each with an attention: the tower must be told apart by more than its length.
    return transformers.PixtralVisionConfig(**_VISION)


def _mistral3_vision() -> Any:
    text = transformers.MistralConfig(**_FAMILIES["mistral"][2])
    config = transformers.Mistral3Config(text_config=text, vision_config=_pixtral(), image_token_index=IMAGE)
    return transformers.Mistral3ForConditionalGeneration(config)


def _llava() -> Any:
    text = transformers.LlamaConfig(**GROUPED)
    vision = transformers.CLIPVisionConfig(**_VISION)
    config = transformers.LlavaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE)
    return transformers.LlavaForConditionalGeneration(config)


_MULTIMODAL: dict[str, Callable[[], Any]] = {
    "gemma3_vision": _gemma3_vision,
    "mistral3_vision": _mistral3_vision,
    "llava": _llava,
}


def randomise(model: Any, seed: int) -> Any:
    """Random weights in place, biases and norms too; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.2 * noise)
            else:
                parameter.copy_(0.2 * noise)
    return model.eval().requires_grad_(False)


@cache
def _backend() -> str:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return str(tokenizer.to_str())


def tiny_tokenizer() -> Any:
    """Byte-level, one token a byte, with six special tokens and a chat template."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend()), pad_token="<|pad|>", eos_token="<|end|>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_chat(family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32) -> ChatModel:
    """A ChatModel around `tiny_model(family, seed)`."""
    return wrap(tiny_model(family, seed).to(dtype), tiny_tokenizer(), name=f"tiny-{family}", revision=f"seed-{seed}")


def untyped(module: Any) -> Any:
    """The module, with attributes that its class has and nn.Module does not declare: transformers' are not typed."""
    return module


def mha_llama(seed: int = 0) -> ChatModel:
    """A tiny Llama with as many key-value heads as query heads."""
    config = transformers.LlamaConfig(**_COMMON, num_key_value_heads=N_HEADS, head_dim=HEAD_DIM)
    model = randomise(transformers.LlamaForCausalLM(config), seed)
    return wrap(model, tiny_tokenizer(), name="tiny-mha")


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def token_prompts(shared: int, own: list[int], seed: int = 0) -> list[Encoded]:
    """Random prompts that begin with the same `shared` tokens and go on with `own[i]` of their own."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 256, (n,), generator=generator).tolist())

    prefix = draw(shared)
    return [Encoded(prefix + draw(n), shared + n) for n in own]


def hook_count(model: Any) -> int:
    """How many forward hooks and pre-hooks hang on the model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@cache
def shared_chat(family: str = "llama") -> ChatModel:
    """One ChatModel a family for the whole run: for tests that leave it as they found it."""
    return tiny_chat(family)


def saved_tiny(folder: Path, family: str = "llama") -> Path:
    """A checkpoint of a family, with its tokenizer, in a folder."""
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def make_adapter(
    folder: Path, seed: int = 1, base: str = "tiny-llama", config: Any = None, manifest: Any = None, **lora: Any
) -> Path:
    """A LoRA adapter with random weights (both halves, so that it does something), saved by PEFT."""
    from peft import LoraConfig, get_peft_model

    model = tiny_model("llama") if config is None else transformers.LlamaForCausalLM(config)
    lora = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **lora}
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    wrapped.save_pretrained(folder, save_embedding_layers=False)  # `auto` asks the hub for the base's vocabulary
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
