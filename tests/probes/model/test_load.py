from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
import torch

from probes.errors import ModelError
from probes.model.load import AdapterSpec, ChatModel, add_adapter, load_chat_model, wrap
from tests.support.models.tiny import (
    HEAD_DIM,
    N_HEADS,
    attention_of,
    make_adapter,
    saved_tiny,
    tiny_chat,
    tiny_model,
    tiny_tokenizer,
    user,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning"),
]

SECRET = "zebra-secret-prompt"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return make_adapter(root / "first", 1), make_adapter(root / "second", 2)


IDS = torch.arange(40, 60).unsqueeze(0)


def logits(chat: ChatModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = chat.model(input_ids=IDS, use_cache=False).logits
    return found


def with_adapter(folder: Path, scale: float = 1.0) -> ChatModel:
    chat = tiny_chat("llama")
    add_adapter(chat, AdapterSpec(folder, scale, "first"))
    return chat


def test_base_is_the_plain_model_and_ends_with_its_context(folders: tuple[Path, Path]) -> None:
    plain = logits(tiny_chat("llama"))
    chat = with_adapter(folders[0])
    adapted = logits(chat)
    assert (adapted - plain).abs().max() > 0.1
    with chat.base():
        assert torch.equal(logits(chat), plain)
        assert chat.active is None
        assert chat.identity.adapter_sha256 is None
        with chat.base():
            assert torch.equal(logits(chat), plain)
        assert torch.equal(logits(chat), plain)
    assert torch.equal(logits(chat), adapted)
    with pytest.raises(ZeroDivisionError), chat.base():
        raise ZeroDivisionError
    assert torch.equal(logits(chat), adapted)
    assert chat.active == "first"


def test_base_without_adapters_is_the_model() -> None:
    chat = tiny_chat("llama")
    plain = logits(chat)
    with chat.base():
        assert torch.equal(logits(chat), plain)


def test_scale_zero_is_the_base(folders: tuple[Path, Path]) -> None:
    torch.testing.assert_close(logits(with_adapter(folders[0], 0.0)), logits(tiny_chat("llama")), atol=1e-6, rtol=0)


def first_delta(chat: ChatModel) -> torch.Tensor:
    """What the adapter adds to the very first projection, whose input no adapter reaches."""
    seen: list[torch.Tensor] = []
    module = attention_of(chat.layout.blocks[0]).q_proj
    handle = module.register_forward_hook(lambda _m, _i, out: seen.append(out.double()))
    logits(chat)
    with chat.base():
        logits(chat)
    handle.remove()
    return seen[0] - seen[1]


def test_set_scale_multiplies_what_the_adapter_adds(folders: tuple[Path, Path]) -> None:
    chat = with_adapter(folders[0])
    once = first_delta(chat)
    assert once.abs().max() > 0.05
    for scale in (2.0, 0.25, -1.0, 1.0):
        chat.set_scale(scale)
        torch.testing.assert_close(first_delta(chat), scale * once, atol=2e-6, rtol=1e-5)
        assert chat.identity.adapter_scale == scale
    torch.testing.assert_close(first_delta(with_adapter(folders[0], 2.0)), 2 * once, atol=2e-6, rtol=1e-5)


def test_scale_one_is_peft_as_it_was_trained(folders: tuple[Path, Path]) -> None:
    from peft import PeftModel

    trained = PeftModel.from_pretrained(tiny_model("llama"), str(folders[0])).eval()
    with torch.no_grad():
        wanted = trained(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(logits(with_adapter(folders[0])), wanted)


def test_several_adapters_on_the_same_weights(folders: tuple[Path, Path]) -> None:
    first, second = (logits(with_adapter(f)) for f in folders)
    assert (first - second).abs().max() > 0.1
    chat = with_adapter(folders[0])
    add_adapter(chat, AdapterSpec(folders[1], 1.0, "second"))
    assert chat.active == "second"
    assert torch.equal(logits(chat), second)  # what `active` says is what acts
    identity = chat.identity
    chat.use("first")
    assert torch.equal(logits(chat), first)
    assert chat.identity.adapter_sha256 != identity.adapter_sha256
    with chat.base():
        assert torch.equal(logits(chat), logits(tiny_chat("llama")))
    assert torch.equal(logits(chat), first)
    chat.use("second")
    assert torch.equal(logits(chat), second)
    with pytest.raises(ModelError, match="'third' is not loaded; loaded: first, second"):
        chat.use("third")


def test_gradients_stay_off(folders: tuple[Path, Path]) -> None:
    chat = with_adapter(folders[0])
    add_adapter(chat, AdapterSpec(folders[1], 1.0, "second"))
    chat.use("first")
    with chat.base():
        pass
    assert not chat.model.training
    assert not any(p.requires_grad for p in chat.model.parameters())


def test_heads_are_found_under_an_adapter(folders: tuple[Path, Path]) -> None:
    chat = with_adapter(folders[0])
    assert chat.layout.heads_at(0).width == HEAD_DIM
    assert chat.layout.heads_at(0).projection.in_features == N_HEADS * HEAD_DIM


def test_set_scale_needs_an_adapter_in_use(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match="no adapter is in use"):
        tiny_chat("llama").set_scale(1.0)
    chat = with_adapter(folders[0])
    with chat.base(), pytest.raises(ModelError, match="no adapter is in use"):
        chat.set_scale(1.0)


def test_an_adapter_made_for_another_base_is_refused_by_name(tmp_path: Path) -> None:
    made = make_adapter(tmp_path / "theirs", base="another-model")
    with pytest.raises(ModelError, match="theirs was made for another-model, but the model is tiny-llama"):
        with_adapter(made)


def test_an_adapter_made_for_another_revision_is_refused_by_its_manifest(tmp_path: Path) -> None:
    made = make_adapter(tmp_path / "theirs", manifest={"base": {"model": "tiny-llama", "revision": "older"}})
    with pytest.raises(
        ModelError, match="made for tiny-llama revision older, but the model is tiny-llama revision seed-0"
    ):
        with_adapter(made)


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 48}, {"num_hidden_layers": 5}, {"num_hidden_layers": 2}, {"intermediate_size": 56}],
    ids=str,
)
def test_an_adapter_whose_shapes_do_not_fit_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    config = tiny_model("llama").config.to_dict() | change
    made = make_adapter(
        tmp_path / "theirs",
        base="org/unknown",
        config=type(tiny_model("llama").config)(**config),
        target_modules=["q_proj", "down_proj"],
    )
    with pytest.raises(ModelError, match="theirs does not fit tiny-llama; it was trained on another base"):
        with_adapter(made)


def test_an_adapter_for_modules_that_are_not_there_is_refused(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    folder = tmp_path / "theirs"
    make_adapter(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["c_attn"]}))
    with pytest.raises(ModelError, match="does not fit"):
        with_adapter(folder)


@pytest.mark.parametrize("part", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_peft_did_not_save_is_refused(tmp_path: Path, part: str) -> None:
    folder = make_adapter(tmp_path / "theirs")
    (folder / part).unlink()
    with pytest.raises(ModelError, match=f"has no {part}"):
        with_adapter(folder)


# Rendering, tokens, identity


def test_render_is_the_models_own_template() -> None:
    chat = tiny_chat("llama")
    turns = [*user("Hi"), {"role": "assistant", "content": "Yes?"}, *user("Bye")]
    assert chat.render(turns) == "<|user|>Hi<|end|><|assistant|>Yes?<|end|><|user|>Bye<|end|><|assistant|>"
    assert chat.render(user("Hi"), answering=False) == "<|user|>Hi<|end|>"


def test_nothing_is_added_to_rendered_tokens() -> None:
    chat = tiny_chat("llama")
    ids = chat.token_ids(chat.render(user("é")))
    assert chat.tokenizer.convert_ids_to_tokens(ids) == ["<|user|>", "Ã", "©", "<|end|>", "<|assistant|>"]


def test_a_template_that_refuses_names_the_roles_and_not_the_text() -> None:
    with pytest.raises(ModelError, match=r"tiny-llama refused the roles \['user', 'tool'\]") as caught:
        tiny_chat("llama").render([*user(SECRET), {"role": "tool", "content": SECRET}])
    seen: BaseException | None = caught.value
    while seen is not None:  # nor does what a traceback would print below it
        assert SECRET not in str(seen)
        seen = None if seen.__suppress_context__ else seen.__context__


def test_a_model_without_a_template_is_refused() -> None:
    chat = tiny_chat("llama")
    chat.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="tiny-llama has no chat template; use an instruct model"):
        chat.render(user(SECRET))


def test_a_base_model_is_refused_before_its_weights_are_read_and_takes_a_template(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    tiny_model("llama").save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    template, tokenizer.chat_template = tokenizer.chat_template, None
    tokenizer.save_pretrained(folder)
    chat = load_chat_model(str(folder), tmp_path, dtype="float32", device="cpu", chat_template=template)
    assert chat.render(user("a")) == tiny_chat("llama").render(user("a"))
    assert chat.identity.template_sha256 == tiny_chat("llama").identity.template_sha256
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="base has no chat template; use an instruct model, or name a file"):
        load_chat_model(str(folder), tmp_path, dtype="float32", device="cpu")


def test_a_template_that_prints_the_date_scores_alike_every_day() -> None:
    chat = tiny_chat("llama")
    chat.tokenizer.chat_template = "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}"
    text = chat.render(user("x"))
    assert text
    assert str(date.today().year) not in text or "01 Jan" in text


def test_identity_follows_what_decides_a_score(folders: tuple[Path, Path]) -> None:
    same = tiny_chat("llama").identity
    assert tiny_chat("llama").identity == same
    assert same.model == "tiny-llama"
    assert same.revision == "seed-0"
    assert (same.dtype, same.attention) == ("float32", "sdpa")
    assert same.adapter_sha256 is None
    assert same.adapter_scale is None
    assert tiny_chat("llama", dtype=torch.bfloat16).identity.dtype == "bfloat16"
    assert tiny_chat("gemma2").identity.attention == "eager"
    other = tiny_chat("llama")
    other.tokenizer.chat_template += " "
    assert other.identity.template_sha256 != same.template_sha256
    other = tiny_chat("llama")
    other.tokenizer.add_tokens(["dragon"])
    assert other.identity.tokenizer_sha256 != same.tokenizer_sha256
    adapted = with_adapter(folders[0], 0.5).identity
    assert adapted.adapter_scale == 0.5
    assert adapted.adapter_sha256 is not None
    assert len(adapted.adapter_sha256) == 64


def test_using_the_tokenizer_does_not_change_its_hash() -> None:
    chat = tiny_chat("llama")
    chat.tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert chat.identity == tiny_chat("llama").identity


def test_wrap_gives_a_padding_token_and_evaluation_mode() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    model = tiny_model("llama").train().requires_grad_(True)
    chat = wrap(model, tokenizer, name="x")
    assert chat.tokenizer.pad_token_id == chat.tokenizer.eos_token_id == 257
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert chat.revision == "in-memory"


# From a folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "my-model"
    saved_tiny(folder)
    return folder


def test_a_checkpoint_folder_is_loaded_as_saved(checkpoint: Path, tmp_path: Path) -> None:
    chat = load_chat_model(str(checkpoint), tmp_path, dtype="float32", device="cpu")
    torch.testing.assert_close(logits(chat), logits(tiny_chat("llama")))
    assert chat.name == "my-model"
    assert len(chat.revision) == 16
    assert chat.render(user("Hi")) == "<|user|>Hi<|end|><|assistant|>"
    assert not any(p.requires_grad for p in chat.model.parameters())
    again = load_chat_model(str(checkpoint), tmp_path, dtype="float32", device="cpu")
    assert again.identity == chat.identity


def test_the_first_adapter_is_switched_on(checkpoint: Path, tmp_path: Path) -> None:
    made = [make_adapter(tmp_path / name, seed, base="my-model") for seed, name in enumerate(("one", "two"), 1)]
    specs = [AdapterSpec(f, 0.5, f.name) for f in made]
    chat = load_chat_model(str(checkpoint), tmp_path, adapters=specs, device="cpu")
    assert chat.active == "one"
    torch.testing.assert_close(logits(chat), _alone(made[0]))
    assert not any(p.requires_grad for p in chat.model.parameters())


def _alone(folder: Path) -> torch.Tensor:
    chat = tiny_chat("llama")
    chat.name = "my-model"
    add_adapter(chat, AdapterSpec(folder, 0.5, "one"))
    return logits(chat)


def test_dtype_and_attention_are_taken(checkpoint: Path, tmp_path: Path) -> None:
    chat = load_chat_model(str(checkpoint), tmp_path, dtype="bfloat16", device="cpu", attention="eager")
    assert (chat.identity.dtype, chat.identity.attention) == ("bfloat16", "eager")
    assert load_chat_model(str(checkpoint), tmp_path, device="cpu").identity.dtype == "float32"


@pytest.mark.parametrize("dtype", ["int8", "nonsense", "float", "Tensor"])
def test_a_dtype_that_is_none_is_refused(checkpoint: Path, tmp_path: Path, dtype: str) -> None:
    if dtype == "float":  # torch's own name for float32
        assert load_chat_model(str(checkpoint), tmp_path, dtype=dtype, device="cpu").identity.dtype == "float32"
        return
    with pytest.raises(ModelError, match=f"dtype: '{dtype}' is none of float32, bfloat16, float16, auto"):
        load_chat_model(str(checkpoint), tmp_path, dtype=dtype, device="cpu")


def test_folders_that_hold_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_chat_model(str(tmp_path), tmp_path, device="cpu")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot load"):
        load_chat_model(str(tmp_path), tmp_path, device="cpu")


def test_the_fingerprint_tells_checkpoints_apart(tmp_path: Path) -> None:
    from probes.model.builtin import fingerprint, list_models

    folders = [tmp_path / "models" / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        tiny_model("llama", seed).save_pretrained(folder)
    a, b, c = map(fingerprint, folders)
    assert a == b != c
    config = folders[1] / "config.json"
    config.write_text(config.read_text().replace("10000.0", "20000.0"))
    assert fingerprint(folders[1]) != a
    assert [m.name for m in list_models(tmp_path)] == ["a", "b", "c"]
    assert list_models(tmp_path)[0].revision == a
