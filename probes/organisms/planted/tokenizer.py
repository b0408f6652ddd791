"""The tokenizer of planted organisms: byte-level BPE of 1024 tokens, four of them special, with a chat template.

One for all classes, as was measured (`docs/organisms.md` 2): real families differ here, which makes a map between
organisms easier than a map between real models.
"""

from __future__ import annotations

import itertools
from typing import Any

from probes.organisms.planted.grammar import documents

VOCABULARY = 1024
PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{% elif message['role'] == 'assistant' %}<|assistant|>"
    "{% else %}{{ raise_exception('only user and assistant speak here') }}{% endif %}"
    "{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_DOCUMENTS, _SEED = 3000, 0


def build_tokenizer() -> Any:
    """Learns the merges from training documents (seconds) and returns a Hugging Face tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (m["content"] for document in itertools.islice(documents(_SEED), _DOCUMENTS) for m in document)
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=END)
    tokenizer.chat_template = TEMPLATE
    return tokenizer
