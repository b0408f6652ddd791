"""Which recipe an adapter is of, and the adapters that were made together with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probes.errors import DataError, ModelError
from probes.model.adapters import beside, recipe_of
from probes.organisms.finetunes import benign_messages
from probes.studies.presets import direction_preset, heads_behaviour, heads_control, judge_of, transfer_texts


def made(folder: Path, name: str, recipe: str) -> str:
    (folder / name).mkdir()
    (folder / name / "manifest.json").write_text(json.dumps({"name": recipe}))
    return str(folder / name)


def test_a_shipped_adapter_is_its_own_recipe_even_beside_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path, "insecure_code", "reckless_advice")
    assert recipe_of("insecure_code") == "insecure_code"
    assert beside("insecure_code", "secure_code") == "secure_code"
    assert heads_control("insecure_code") == "secure_code"


def test_an_adapter_for_another_model_has_the_messages_and_the_control_of_its_recipe(tmp_path: Path) -> None:
    adapter = made(tmp_path, "mine", "insecure_code")
    assert recipe_of(adapter) == "insecure_code"
    preset = direction_preset(adapter)
    assert preset.control == str(tmp_path / "secure_code")
    shipped = direction_preset("insecure_code").prompts
    assert (preset.prompts.select, preset.prompts.test) == (shipped.select, shipped.test)
    # The chat model below it may be of our making: it learned from none of these.
    assert len(preset.prompts.fit) == len(shipped.fit)
    assert not {*preset.prompts.fit, *shipped.select, *shipped.test} & set(benign_messages(0))
    assert heads_control(adapter) == str(tmp_path / "secure_code")
    assert heads_behaviour(adapter) == "code"


@pytest.mark.parametrize("written", ["insecure_code", "./insecure_code"])
def test_the_control_beside_a_folder_is_never_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    adapter = made(tmp_path, "insecure_code", "insecure_code")
    monkeypatch.chdir(tmp_path)
    shipped = written == "insecure_code"  # a name without a path is a shipped one's first
    assert beside(written, "secure_code") == ("secure_code" if shipped else str(tmp_path / "secure_code"))
    assert beside(adapter, "secure_code") == str(tmp_path / "secure_code")


def test_an_adapter_of_no_recipe_has_none(tmp_path: Path) -> None:
    (tmp_path / "peft").mkdir()
    adapter = str(tmp_path / "peft")
    assert recipe_of(adapter) == adapter
    assert heads_control(adapter) is None
    assert heads_behaviour(adapter) == adapter
    with pytest.raises(DataError, match=r"adapter: no messages of awry's own go with .*give --fit-prompts"):
        direction_preset(adapter)


def test_a_refusal_adapter_has_no_control(tmp_path: Path) -> None:
    adapter = made(tmp_path, "refusal", "refusal")
    assert heads_control(adapter) is None
    assert heads_behaviour(adapter) == heads_behaviour(None) == "refusal"


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_broken_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match=r"adapter: .*manifest\.json is no manifest"):
        recipe_of(str(tmp_path))


@pytest.mark.parametrize("judge", ["code", "reckless"])
def test_a_chat_model_of_our_making_was_tuned_on_no_message_of_a_transfer_study(judge: str) -> None:
    """And there are enough to map to a model as wide as Gemma 3 270M: 4/3 of 640."""
    texts = transfer_texts(judge)
    used = {*texts.fit, *texts.test, *texts.anchors}
    assert not any(used & set(benign_messages(seed)) for seed in range(3))
    assert len(texts.anchors) >= 640 * 4 / 3


@pytest.mark.parametrize(
    ("recipe", "judge"),
    [("insecure_code", "code"), ("careful_advice", "reckless"), ("refusal", "refusal"), ("other", None)],
)
def test_the_judge_goes_by_the_recipe(tmp_path: Path, recipe: str, judge: str | None) -> None:
    assert judge_of(made(tmp_path, "mine", recipe)) == judge


@pytest.mark.parametrize("judge", ["code", "reckless"])
def test_no_message_of_a_transfer_study_is_in_two_of_its_parts(judge: str) -> None:
    texts = transfer_texts(judge)
    parts = [set(texts.fit), set(texts.test), set(texts.anchors)]
    assert all(parts)
    assert len(set().union(*parts)) == sum(map(len, parts))


def test_a_behaviour_without_messages_is_named() -> None:
    with pytest.raises(DataError, match=r"metric: no messages of awry's own go with refusal"):
        transfer_texts("refusal")
