"""The generated parts of the documents are up to date, and the README's commands exist."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from typer.main import get_command

ROOT = Path(__file__).parent.parent


def test_the_tables_are_generated() -> None:
    documents = runpy.run_path(str(ROOT / "docs" / "generate.py"))["generated"]()
    assert set(documents) == {ROOT / "README.md", ROOT / "docs" / "operations.md"}
    for document, fresh in documents.items():
        assert fresh == document.read_text(), f"{document.name}: run make docs"


def test_every_command_and_flag_in_the_readme_exists() -> None:
    from monitor.cli import app, database, models, science, service  # noqa: F401 - they register their commands

    commands = get_command(app).commands  # type: ignore[attr-defined]
    lines = re.findall(r"^awry (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        name, *words = line.split()
        flags = {option for parameter in commands[name].params for option in parameter.opts}
        assert {w for w in words if w.startswith("--")} <= flags, line
