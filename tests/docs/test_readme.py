"""The generated parts of the documents are up to date, and the commands that documents show exist."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from monitor.cli.app import app
from tests.support import ROOT


def test_the_tables_are_generated() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "docs.py"))
    assert {ROOT / document for document, *_ in script["PARTS"]} >= {
        ROOT / "docs" / "settings.md",
        ROOT / "docs" / "operations.md",
    }
    for document, fresh in script["generated"]().items():
        assert fresh == document.read_text(), f"{document.name}: run make docs"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_study_page_is_generated(tmp_path: Path) -> None:
    from probes.studies.summary import write_study_page

    fresh = tmp_path / "docs" / "study.md"
    fresh.parent.mkdir()
    (fresh.parent / "studies").symlink_to(ROOT / "docs" / "studies")
    write_study_page(fresh.parent / "studies", fresh)
    assert fresh.read_text() == (ROOT / "docs" / "study.md").read_text(), "run awry study report"


def commands(text: str) -> list[list[str]]:
    """The words after `awry` of every command in shell blocks: one a line, or several with semicolons between."""
    lines = [
        line.split(" # ")[0] for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    return [piece.split()[1:] for line in lines for piece in line.split(";") if piece.strip().startswith("awry ")]


@pytest.mark.parametrize(
    ("document", "fewest"),
    [
        ("README.md", 16),
        ("docs/operations.md", 10),
        ("docs/destinations.md", 5),
        ("docs/traffic.md", 3),
        ("docs/install.md", 4),
    ],
)
def test_every_command_and_flag_exists(document: str, fewest: int) -> None:
    found = commands((ROOT / document).read_text())
    assert len(found) >= fewest
    for words in found:
        command: Any = get_command(app)
        left = list(words)
        while hasattr(command, "commands") and (left or not command.invoke_without_command):
            command = command.commands[left.pop(0)]
        flags = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in left if word.startswith("--")} <= flags, " ".join(words)
