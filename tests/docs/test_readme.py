"""The generated parts of the documents are up to date, and the README's commands exist."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from typer.main import get_command

from monitor.cli.app import app, register
from tests.support import ROOT


def test_the_tables_are_generated() -> None:
    documents = runpy.run_path(str(ROOT / "docs" / "generate.py"))["generated"]()
    assert set(documents) == {ROOT / "README.md", ROOT / "docs" / "operations.md"}
    for document, fresh in documents.items():
        assert fresh == document.read_text(), f"{document.name}: run make docs"


def test_the_study_page_is_generated(tmp_path: Path) -> None:
    from probes.studies.summary import write_study_page

    fresh = tmp_path / "docs" / "study.md"
    fresh.parent.mkdir()
    (fresh.parent / "studies").symlink_to(ROOT / "docs" / "studies")
    write_study_page(fresh.parent / "studies", fresh)
    assert fresh.read_text() == (ROOT / "docs" / "study.md").read_text(), "run awry study report"


@pytest.mark.parametrize(("document", "fewest"), [("README.md", 8), ("docs/operations.md", 4)])
def test_every_command_and_flag_exists(document: str, fewest: int) -> None:
    register()
    lines = re.findall(r"^awry (.+)$", (ROOT / document).read_text(), re.MULTILINE)
    assert len(lines) >= fewest
    for line in lines:
        command, words = get_command(app), line.split()
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        flags = {option for parameter in command.params for option in parameter.opts}
        assert {w for w in words if w.startswith("--")} <= flags, line
