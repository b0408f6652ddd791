"""`awry study transfer --family`: where a family's chat template comes from, and what is said where it has none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import Result

from monitor.cli.research.study.transfer import TransferFlags, _families
from monitor.errors import SettingsError
from tests.support.cli import invoke, message_of
from tests.support.models.tiny import TEMPLATE, saved_tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A family with a chat template, and one of another class without."""
    with_one = saved_tiny(tmp_path_factory.mktemp("families") / "chatty")
    without = saved_tiny(with_one.parent / "base", "gemma3")
    (without / "chat_template.jinja").unlink()
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(without)
    return with_one, without


def study(*arguments: str | Path) -> Result:
    return invoke("study", "transfer", *arguments)


def test_a_family_without_a_chat_template_is_named_before_any_is_read(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.service.bootstrap.load_model", lambda *_: pytest.fail("a model was loaded"))
    with_one, without = folders
    done = study("--family", with_one, "--family", without, "--state-dir", tmp_path, "--out", tmp_path / "out")
    assert message_of(done) == (
        "chat_template: base has no chat template of its own; name a file with one by --chat-template"
    )
    assert not (tmp_path / "out").exists()


def test_a_template_that_is_given_is_for_the_family_that_has_none(folders: tuple[Path, Path], tmp_path: Path) -> None:
    template = tmp_path / "turns.jinja"
    template.write_text(TEMPLATE.replace("<|end|>", "<|end|>\n"))
    flags = TransferFlags(family=list(map(str, folders)), chat_template=template, state_dir=tmp_path)
    chatty, base = _families(flags)
    assert [chatty.name, base.name] == ["chatty", "base"]
    assert "comes with it" in chatty.template
    assert "turns.jinja" in base.template
    question = [{"role": "user", "content": "Where is Peru?"}]
    assert chatty.load().render(question) == "<|user|>Where is Peru?<|end|><|assistant|>"
    loaded = base.load()
    assert loaded.render(question) == "<|user|>Where is Peru?<|end|>\n<|assistant|>"
    assert torch.isfinite(loaded.model(input_ids=torch.tensor([[1, 2]])).logits).all()


def test_a_template_that_nobody_needs_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    template = tmp_path / "turns.jinja"
    template.write_text(TEMPLATE)
    flags = TransferFlags(family=[str(folders[0])] * 2, chat_template=template, state_dir=tmp_path)
    with pytest.raises(SettingsError, match="every family given has one of its own"):
        _families(flags)


def test_one_family_is_no_study(folders: tuple[Path, Path], tmp_path: Path) -> None:
    done = study("--family", folders[0], "--state-dir", tmp_path, "--out", tmp_path / "out")
    assert message_of(done).startswith("families: chatty; at least two are needed")
