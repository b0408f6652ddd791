"""Identity is of everything that changes a score: each weight in whatever file, and what PEFT's config says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from probes.errors import ModelError
from probes.hashing import sha256_file
from probes.model.digests import adapter_config_sha256, weight_files, weights_sha256
from probes.model.load import AdapterSpec, load_chat_model
from tests.support.models.tiny import make_adapter, saved_tiny, tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    saved_tiny(made)
    return made


def as_bin(folder: Path, change: str | None = None) -> None:
    """The weights as an older checkpoint has them."""
    tensors = load_file(folder / "model.safetensors")
    if change is not None:
        tensors[change] = -tensors[change]
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_each_weight_counts_in_either_kind_of_file(folder: Path, tmp_path: Path) -> None:
    seen = {weights_sha256(folder)}
    whole = load_file(folder / "model.safetensors")
    for name, tensor in whole.items():
        save_file(whole | {name: -tensor}, folder / "model.safetensors", {"format": "pt"})
        seen.add(weights_sha256(folder))
    assert len(seen) == len(whole) + 1
    names = [None, "model.layers.1.mlp.down_proj.weight"]
    found = set()
    for change in names:
        save_file(whole, folder / "model.safetensors", {"format": "pt"})
        as_bin(folder, change)
        assert [path.name for path in weight_files(folder)] == ["pytorch_model.bin"]
        found.add(load_chat_model(str(folder), tmp_path, dtype="float32", device="cpu").identity)
    assert len(found) == 2


def test_what_decides_and_what_does_not(folder: Path) -> None:
    before = weights_sha256(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "0.0", "dtype": "float16"}))
    (folder / "README.md").write_text("about")
    (folder / "training_args.bin").write_bytes(b"of training")
    assert weights_sha256(folder) == before
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    assert weights_sha256(folder) != before
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text("code of the repository")
    assert weights_sha256(folder) != before


def test_shards_are_all_read(folder: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    tiny_model("llama").save_pretrained(sharded, max_shard_size="10KB")
    files = weight_files(sharded)
    assert len(files) > 3
    before = weights_sha256(sharded)
    last = load_file(files[-1])
    save_file({name: -tensor for name, tensor in last.items()}, files[-1], {"format": "pt"})
    assert weights_sha256(sharded) != before


def test_a_cache_spares_reading_and_notices_a_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def reading(path: Path) -> str:
        read.append(path)
        return sha256_file(path)

    monkeypatch.setattr("probes.model.digests.sha256_file", reading)
    cache = tmp_path / "digests.json"
    first = weights_sha256(folder, cache)
    assert weights_sha256(folder, cache) == first
    assert len(read) == 1
    weights = folder / "model.safetensors"
    times = weights.stat()
    changed = {name: -tensor for name, tensor in load_file(weights).items()}
    save_file(changed, weights, {"format": "pt"})
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # the same size and the same time
    assert weights_sha256(folder, cache) != first
    assert len(read) == 2
    cache.write_text("no JSON")
    assert weights_sha256(folder, cache) == weights_sha256(folder)


@pytest.mark.parametrize("change", [{"lora_alpha": 64}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 1}}])
def test_what_peft_says_of_an_adapter_decides(tmp_path: Path, change: dict[str, Any]) -> None:
    made = make_adapter(tmp_path / "adapter")
    before = adapter_config_sha256(made)
    config = json.loads((made / "adapter_config.json").read_text())
    (made / "adapter_config.json").write_text(json.dumps(config | {"target_modules": config["target_modules"][::-1]}))
    assert adapter_config_sha256(made) == before
    ignored = {"peft_version": "9", "base_model_name_or_path": "x", "lora_dropout": 0.5, "a_later_field": None}
    (made / "adapter_config.json").write_text(json.dumps(config | ignored))
    assert adapter_config_sha256(made) == before
    (made / "adapter_config.json").write_text(json.dumps(config | change))
    assert adapter_config_sha256(made) != before


def test_the_identity_has_both(folder: Path, tmp_path: Path) -> None:
    made = make_adapter(tmp_path / "adapter", base="model")
    spec = AdapterSpec(made, 1.0)
    identity = load_chat_model(str(folder), tmp_path, adapters=[spec], device="cpu").identity
    assert identity.weights_sha256 == weights_sha256(folder)
    assert identity.adapter_config_sha256 == adapter_config_sha256(made)


def test_a_folder_of_an_adapter_is_no_model(folder: Path, tmp_path: Path) -> None:
    make_adapter(folder)  # beside the model's own files: transformers would put it on unasked
    with pytest.raises(
        ModelError, match=r"is an adapter; give it by --adapter, and its base \(tiny-llama\) by --model"
    ):
        load_chat_model(str(folder), tmp_path, device="cpu")
