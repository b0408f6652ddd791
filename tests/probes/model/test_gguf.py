"""A GGUF file as a model: a tiny one, written here, is the checkpoint that it was made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import GGUFReader, GGUFValueType, GGUFWriter, TokenType

from probes.capture.sites import Site
from probes.errors import ModelError
from probes.model import weights
from probes.model.load import ChatModel, load_chat_model, wrap
from tests.support.models.tiny import (
    HEAD_DIM,
    N_BLOCKS,
    N_HEADS,
    N_KV,
    SPECIALS,
    TEMPLATE,
    VOCAB,
    WIDTH,
    tiny_chat,
    tiny_model,
    tiny_tokenizer,
    user,
)

TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}


def tiny_qwen() -> Any:
    """Qwen 2: biases, and heads as wide as the width says."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        **{"vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": N_BLOCKS},
        **{"num_attention_heads": N_HEADS, "num_key_value_heads": N_KV, "pad_token_id": 256, "eos_token_id": 257},
        **{"max_position_embeddings": 1024, "tie_word_embeddings": False},
    )
    model = transformers.Qwen2ForCausalLM(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    return model.eval().requires_grad_(False)


def write(path: Path, architecture: str = "llama", model: Any = None, head_dim: int = HEAD_DIM) -> Path:
    """A tiny model as llama.cpp's converter would write it."""
    tokenizer, of_llama = tiny_tokenizer(), model is None
    model = model or tiny_model("llama")
    writer = GGUFWriter(str(path), architecture)
    writer.add_context_length(1024)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(N_BLOCKS)
    writer.add_feed_forward_length(model.config.intermediate_size)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    words = [word for word, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([TokenType.CONTROL if word in SPECIALS else TokenType.NORMAL for word in words])
    writer.add_token_scores([0.0] * VOCAB)
    writer.add_token_merges([])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(257)
    writer.add_pad_token_id(256)
    writer.add_chat_template(TEMPLATE)
    for name, values in model.state_dict().items():
        array = values.numpy().astype(np.float32)
        for projection, heads in (("q_proj", N_HEADS), ("k_proj", N_KV)):
            # GGUF's Llama has the halves of each head interleaved.
            if of_llama and f"{projection}.weight" in name:
                array = array.reshape(heads, 2, HEAD_DIM // 2, WIDTH).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(_name(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _name(name: str) -> str:
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    module, _, kind = name.rpartition(".")
    if module in whole:
        return f"{whole[module]}.{kind}"
    _, _, block, part = module.split(".", 3)
    return f"blk.{block}.{TENSORS[part]}.{kind}"


def split(file: Path, folder: Path) -> list[Path]:
    """The file in three parts, as llama.cpp's tool splits it: the fields are in the first, tensors in each."""
    reader = GGUFReader(file)
    tensors = list(reader.tensors)
    parts = []
    for number in range(3):
        part = folder / f"{file.stem}-{number + 1:05}-of-00003.gguf"
        writer = GGUFWriter(str(part), "llama")
        for field in reader.fields.values() if number == 0 else ():
            if field.name != "general.architecture" and not field.name.startswith("GGUF."):
                kind = field.types[0]
                sub = field.types[-1] if kind == GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), kind, sub_type=sub)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 3)
        writer.add_int32("split.tensors.count", len(tensors))
        for tensor in tensors[number::3]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        parts.append(part)
    return parts


def logits(chat: ChatModel) -> torch.Tensor:
    found: torch.Tensor = chat.model(input_ids=torch.arange(40, 60).unsqueeze(0)).logits
    return found


def test_another_class_is_read_as_well(tmp_path: Path) -> None:
    model = tiny_qwen()
    file = write(tmp_path / "tiny.gguf", "qwen2", model, WIDTH // N_HEADS)
    chat = load_chat_model(str(file), tmp_path, dtype="float32", device="cpu")
    assert type(chat.model).__name__ == "Qwen2ForCausalLM"
    torch.testing.assert_close(logits(chat), logits(wrap(model, tiny_tokenizer(), name="x")))


def test_weights_of_another_shape_than_the_config_says_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "tiny.gguf", "qwen3", tiny_model("qwen3"))  # whose heads it takes to be 128 wide
    with pytest.raises(ModelError, match=r"tiny\.gguf cannot be read as GGUF .*ignore_mismatched_sizes"):
        load_chat_model(str(file), tmp_path, device="cpu")


def test_a_file_in_parts_is_the_file(tmp_path: Path) -> None:
    (folder := tmp_path / "download").mkdir()
    parts = split(write(tmp_path / "tiny.gguf"), folder)
    (folder / "mmproj-tiny.gguf").write_bytes(b"the tower for images")
    wanted = logits(tiny_chat("llama"))
    for name in (folder, parts[0], parts[1]):
        chat = load_chat_model(str(name), tmp_path, dtype="float32", device="cpu")
        torch.testing.assert_close(logits(chat), wanted)
    assert chat.name == "tiny"
    assert len(list((tmp_path / "models").iterdir())) == 1
    parts[2].unlink()
    with pytest.raises(ModelError, match=r"is one of 3 parts; tiny-00003-of-00003\.gguf is not beside it"):
        load_chat_model(str(parts[0]), tmp_path)


def test_only_what_is_read_of_it_is_loaded(tmp_path: Path) -> None:
    chat = load_chat_model(str(write(tmp_path / "tiny.gguf")), tmp_path, device="cpu", sites=[Site("residual", 0)])
    assert [any(p.is_meta for p in block.parameters()) for block in chat.layout.blocks] == [False, True, True]


@pytest.mark.model
def test_the_file_of_the_built_in_model_is_the_built_in_model(state: Path, tmp_path: Path) -> None:
    found = weights.find(weights.SMOLLM2, state)
    if found is None:  # made before, and its file is gone
        weights.fetch(weights.SMOLLM2, tmp_path)
        found = weights.find(weights.SMOLLM2, tmp_path)
    assert found is not None
    copy = tmp_path / "brought.gguf"
    copy.symlink_to(found)
    chat = load_chat_model(str(copy), tmp_path, device="cpu")
    wanted = load_chat_model(weights.SMOLLM2.model, state, device="cpu").identity
    assert chat.identity == replace(wanted, model="brought")


def test_it_is_the_checkpoint_that_it_was_made_of(tmp_path: Path) -> None:
    (folder := tmp_path / "download").mkdir()
    file = write(folder / "tiny.Q8.gguf")
    said: list[str] = []
    chat = load_chat_model(str(file), tmp_path, dtype="float32", device="cpu", progress=said.append)
    wanted = tiny_chat("llama")
    ids = torch.tensor([wanted.token_ids(wanted.render(user("héllo")))])
    assert ids[0].tolist() == chat.token_ids(chat.render(user("héllo")))
    torch.testing.assert_close(chat.model(input_ids=ids).logits, wanted.model(input_ids=ids).logits)
    assert chat.name == "tiny.Q8"
    assert len(said) == 1

    # Once is enough, and a folder that holds nothing else is its file.
    again = load_chat_model(str(folder), tmp_path, dtype="float32", device="cpu", progress=said.append)
    assert (again.revision, len(said)) == (chat.revision, 1)
    write(folder / "other.gguf")
    with pytest.raises(ModelError, match=r"holds 2 GGUF files \(other\.gguf, \.\.\.\); give one of them"):
        load_chat_model(str(folder), tmp_path)


def test_what_cannot_be_read_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.gguf is not there"):
        load_chat_model("nowhere.gguf", tmp_path)
    (broken := tmp_path / "broken.gguf").write_bytes(b"GGUF, but no")
    unknown = write(tmp_path / "unknown.gguf", "perceptron")
    for file in (broken, unknown):
        with pytest.raises(ModelError, match=rf"{file.name} cannot be read as GGUF .*; give the folder of the safeten"):
            load_chat_model(str(file), tmp_path)
    assert list((tmp_path / "models").iterdir()) == []
