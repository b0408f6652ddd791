"""What a start keeps for the next one is used only where nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.service import start_checks
from monitor.service.start_checks import StartChecks
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from tests.support.models.tiny import make_adapter, tiny_chat

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def known(seed: int = 0) -> ChatModel:
    """A model as one of a folder, whose weights have a digest."""
    chat = tiny_chat("llama", seed)
    chat.weights_sha256 = f"weights-{seed}"
    return chat


class Work:
    def __init__(self) -> None:
        self.done = 0

    def __call__(self) -> float:
        self.done += 1
        return 0.25


def test_what_was_found_is_kept_and_said(tmp_path: Path) -> None:
    work = Work()
    first = StartChecks(tmp_path, known())
    assert first.once("replay a", work) == 0.25
    assert first.reused == []
    second = StartChecks(tmp_path, known())
    assert second.once("replay a", work) == 0.25
    assert (second.reused, work.done) == (["replay a"], 1)
    second.once("replay b", work)
    assert work.done == 2


def test_anything_else_is_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work()

    def checked_again(chat: ChatModel) -> bool:
        before = work.done
        StartChecks(tmp_path, chat).once("replay a", work)
        return work.done > before

    assert checked_again(known())
    assert not checked_again(known())
    assert checked_again(known(1))
    adapted = known()
    add_adapter(adapted, AdapterSpec(make_adapter(tmp_path / "adapter"), 0.5))
    assert checked_again(adapted)
    assert not checked_again(adapted)
    adapted.set_scale(0.6)
    assert checked_again(adapted)
    template = known()
    template.tokenizer.chat_template += " "
    assert checked_again(template)
    unknown = tiny_chat("llama")
    assert checked_again(unknown)
    assert checked_again(unknown)
    for part, other in (("_code", "another"), ("_version", "9.9"), ("_device", "another kind")):
        monkeypatch.setattr(start_checks, part, lambda *_, other=other: other)
        assert checked_again(known()), part
        assert not checked_again(known()), part
        monkeypatch.undo()
    assert not checked_again(known())


def test_what_raises_is_not_kept(tmp_path: Path) -> None:
    def fail() -> float:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            StartChecks(tmp_path, known()).once("replay a", fail)


def test_a_folder_that_is_broken_or_cannot_be_written_means_work(tmp_path: Path) -> None:
    work = Work()
    StartChecks(tmp_path, known()).once("replay a", work)
    for path in (tmp_path / "start-checks").rglob("*.json"):
        path.write_text("{")
    assert StartChecks(tmp_path, known()).once("replay a", work) == 0.25
    assert work.done == 2
    (tmp_path / "file").write_text("")
    assert StartChecks(tmp_path / "file", known()).once("replay a", work) == 0.25
    assert work.done == 3


def test_old_ones_are_forgotten(tmp_path: Path) -> None:
    for seed in range(30):
        chat = known()
        chat.weights_sha256 = f"w{seed}"
        StartChecks(tmp_path, chat).once("replay a", Work())
    assert len(list((tmp_path / "start-checks").iterdir())) == 20
