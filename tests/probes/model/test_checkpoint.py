"""What cannot be read is refused before weights are: by its class, its structure, or an error of a library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.torch import load_file, save_file

from probes.capture.sites import Site
from probes.errors import LayoutError, ModelError
from probes.model.checkpoint import inspect
from probes.model.load import load_chat_model
from tests.support.models.tiny import saved_tiny, tiny_model, tiny_tokenizer


def checkpoint(folder: Path, config: dict[str, Any]) -> Path:
    """A folder whose weights would fail when they are read."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"not weights")
    return folder


def config_of(name: str, **values: Any) -> dict[str, Any]:
    made: dict[str, Any] = getattr(transformers, name)(**values).to_dict()
    return made


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 300,
}
REFUSED = {
    "encoder-decoder": (
        config_of("T5Config", d_model=16, num_layers=2, num_heads=2, d_ff=16, vocab_size=300),
        r"'t5' \(no architecture named\) is none that writes text: transformers has it in none of AutoModelForCausalLM",
    ),
    "of-sound": (config_of("Wav2Vec2Config", **SMALL), "'wav2vec2' .* is none that writes text"),
    "of-no-type": ({"hidden_size": 4}, "cannot load"),
    "of-an-unknown-type": ({"model_type": "nobody_knows"}, "cannot load .* give SmolLM2-135M-Instruct, the folder"),
    "with-a-broken-value": (config_of("LlamaConfig", **SMALL) | {"hidden_size": "wide"}, "cannot load"),
    "with-heads-that-do-not-fit": (config_of("GPT2Config", n_embd=15, n_head=4, n_layer=2), "cannot load"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_before_its_weights_are(name: str, tmp_path: Path) -> None:
    config, said = REFUSED[name]
    with pytest.raises(ModelError, match=said):
        load_chat_model(str(checkpoint(tmp_path / name, config)), tmp_path, device="cpu")


def test_a_structure_that_is_not_found_says_what_was_looked_for(tmp_path: Path) -> None:
    # Runs its one group of layers several times.
    config = config_of("AlbertConfig", **SMALL) | {"architectures": ["AlbertForMaskedLM"]}
    with pytest.raises(ModelError, match="none that writes text"):
        inspect(str(checkpoint(tmp_path / "albert", config)), name="x")
    config = config_of("BertConfig", **SMALL, is_decoder=True)
    with pytest.raises(LayoutError, match=r"BertLMHeadModel: .*looked for"):
        inspect(str(checkpoint(tmp_path / "bert", config)), name="x")


def test_weights_that_cannot_be_read_are_an_error_of_ours(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", config_of("LlamaConfig", **SMALL))
    with pytest.raises(ModelError, match="cannot load"):
        load_chat_model(str(folder), tmp_path, device="cpu")
    quantised = config_of("LlamaConfig", **SMALL) | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    with pytest.raises(ModelError, match=r"cannot load .*(?i:gptq|optimum)"):
        load_chat_model(str(checkpoint(tmp_path / "q", quantised)), tmp_path, device="cpu")


def test_weights_of_another_shape_are_an_error_of_ours(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    saved_tiny(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ModelError, match="cannot load"):
        load_chat_model(str(folder), tmp_path, device="cpu")


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    saved_tiny(folder)
    weights = load_file(folder / "model.safetensors")
    without = {name: tensor for name, tensor in weights.items() if name != "model.layers.1.mlp.up_proj.weight"}
    save_file(without, folder / "model.safetensors", {"format": "pt"})
    for sites in (None, [Site("residual", 1)]):
        with pytest.raises(ModelError, match=r"1 weights of the decoder are not in .* model\.layers\.1\.mlp\.up_proj"):
            load_chat_model(str(folder), tmp_path, device="cpu", sites=sites)
    # Nobody reads that block.
    load_chat_model(str(folder), tmp_path, device="cpu", sites=[Site("residual", 0)])


def test_code_of_a_repository_is_run_only_when_allowed(tmp_path: Path) -> None:
    config = {"model_type": "own", "auto_map": {"AutoConfig": "code.Own", "AutoModelForCausalLM": "code.OwnModel"}}
    folder = checkpoint(tmp_path / "own", config)
    (folder / "code.py").write_text("raise RuntimeError('was run')")
    with pytest.raises(ModelError, match=r"(?i)trust_remote_code|custom code"):
        load_chat_model(str(folder), tmp_path, device="cpu")
    with pytest.raises(ModelError, match="was run"):
        load_chat_model(str(folder), tmp_path, device="cpu", trust_remote_code=True)


# A template in the manner of models that take images: content in parts, a string is left out.
IN_PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ part['text'] }}{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A checkpoint whose tokenizer has no chat template."""
    folder = tmp_path / "m"
    tiny_model("llama").save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", ["given", "of the processor"])
def test_a_template_that_reads_parts_is_given_parts(plain: Path, tmp_path: Path, form: str) -> None:
    given = IN_PARTS if form == "given" else None
    if given is None:
        (plain / "chat_template.json").write_text(json.dumps({"chat_template": IN_PARTS}))
    chat = load_chat_model(str(plain), tmp_path, device="cpu", chat_template=given)
    rendered = chat.rendered([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}])
    assert rendered.text == "<|system|>Be brief.<|end|><|user|>Hello there<|end|><|assistant|>"
    assert rendered.how == "template"
    found = chat.prompt_tokens(rendered).turns
    assert found is not None
    assert [turn.role for turn in found] == ["system", "user"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "m has no chat template; use an instruct model, or name a file"),
        ("{{ messages[0]['content'] ", "the chat template of m refused .*TemplateSyntaxError"),
        ("{{ raise_exception('never') }}", "the chat template of m refused the roles .'user'."),
    ],
)
def test_a_template_that_cannot_be_used_is_found_before_the_weights_are_read(
    plain: Path, tmp_path: Path, template: str | None, said: str
) -> None:
    (plain / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=said):
        load_chat_model(str(plain), tmp_path, device="cpu", chat_template=template)


def test_several_templates_of_which_none_is_the_default(plain: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"tool_use": IN_PARTS, "other": IN_PARTS}
    tokenizer.save_pretrained(plain)
    with pytest.raises(ModelError, match=r"several chat templates \(other, tool_use\) and none called default"):
        load_chat_model(str(plain), tmp_path, device="cpu")
