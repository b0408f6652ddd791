"""Decoder classes of transformers that are refused, and those that no test reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import transformers


@dataclass(frozen=True)
class Refusal:
    """`why` is a part of what is said, for people. `values` are those of the config beside its defaults."""

    why: str
    values: dict[str, Any] = field(default_factory=dict)


REFUSED: dict[str, Refusal] = {
    "bert": Refusal("in a module that takes input_ids"),
    "bart": Refusal("no final norm beside the blocks", {"is_encoder_decoder": False}),
    "deepseek_v4": Refusal("returns (1, 3, 4, 4096)"),
    "hrm_text": Refusal("it may be run several times or both ways"),
    "hy_v4": Refusal("returns (1, 3, 4, 2816)"),
    "mllama": Refusal("block 3 is not run on text"),
    "openai-gpt": Refusal("no final norm beside the blocks"),
    "opt": Refusal("no final norm beside the blocks", {"do_layer_norm_before": False}),
    "prophetnet": Refusal("no final norm beside the blocks", {"is_encoder_decoder": False}),
    "xlm": Refusal("transformer.attentions (12), transformer.ffns (12)"),
    "xlnet": Refusal("no final norm beside the blocks"),
}


def refused_model(model_type: str, **options: Any) -> Any:
    """A model with its class's usual sizes: for devices that hold no weights."""
    config = transformers.CONFIG_MAPPING[model_type](**REFUSED[model_type].values)
    return transformers.AutoModelForCausalLM.from_config(config, **options)


# Classes that transformers loads as language models and no test reads, and why.
UNTESTED: dict[str, str] = {
    "blt": "reads bytes in patches through four stacks",
    "dots3_note_text": "some of its sizes are fixed, so that there is no small one",
    "emu3, fuyu, phi4_multimodal, moss_transcribe_diarize": (
        "built with their towers for images or sound, so that there is no small one; their text decoders have the parts"
    ),
    "marian, mbart, pegasus, whisper, trocr": "decoders of encoder-decoders, which are not read by themselves",
    "musicgen, musicgen_melody": "write sound",
    "qwen4_exp_text": "transformers 5.23 cannot build its default config; no final norm was found in a small one",
}
