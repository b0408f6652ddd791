"""The generated part of the README is up to date, and its commands exist."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from typer.main import get_command

ROOT = Path(__file__).parent.parent


def test_the_settings_table_is_generated() -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert generate["generated"]() == (ROOT / "README.md").read_text(), "run make docs"


def test_every_command_and_flag_in_the_readme_exists() -> None:
    from monitor.cli import app, database, models, science, service  # noqa: F401 - they register their commands

    commands = get_command(app).commands  # type: ignore[attr-defined]
    lines = re.findall(r"^awry (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        name, *words = line.split()
        flags = {option for parameter in commands[name].params for option in parameter.opts}
        assert {w for w in words if w.startswith("--")} <= flags, line
