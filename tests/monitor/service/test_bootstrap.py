"""From settings to a model: the chat template of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from awry.errors import AwryError
from monitor.service.bootstrap import load_model
from monitor.settings import Settings
from tests.support.models.tiny import TEMPLATE, user


def settings(tiny_folder: Path, template: Path) -> Settings:
    return Settings(model=str(tiny_folder / "tiny-chat"), state_dir=tiny_folder, chat_template=template)


def test_the_template_of_a_file_is_in_the_place_of_the_models_own(tiny_folder: Path, tmp_path: Path) -> None:
    (file := tmp_path / "chat.jinja").write_text("Served so: " + TEMPLATE)
    chat = load_model(settings(tiny_folder, file))
    assert chat.render(user("a")) == "Served so: <|user|>a<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read .* \\(No such file or directory\\)"),
        (b"", "is empty"),
        (b"\xff", "not UTF-8"),
        (b"{% if %}", "cannot be used: .*TemplateSyntaxError"),
    ],
)
def test_what_is_no_template_is_refused_before_a_message_comes(
    tiny_folder: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "chat.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AwryError, match=f"^chat_template: .*{said}"):
        load_model(settings(tiny_folder, file))
