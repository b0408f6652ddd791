"""The rules file that people begin with can be used, and the page that explains it names every field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from alerts.rulefile import KINDS, load_rules
from alerts.rules import Check

ROOT = Path(__file__).parent.parent.parent
EXAMPLE, PAGE = ROOT / "deploy" / "rules.example.toml", ROOT / "docs" / "alerts.md"


def test_the_example_can_be_used() -> None:
    found = load_rules(EXAMPLE)
    assert {type(rule).__name__ for rule in found.all} == {"ThresholdRule", "RateRule", "MonitorRule"}
    assert [rule.name for rule in found.all if rule.shadow] == ["tenant-rate"]


def test_the_page_names_every_field_and_check() -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE.read_text()))
    fields = {field.alias or name for kind in KINDS.values() for name, field in kind.model_fields.items()}
    assert fields | set(get_args(Check)) <= named


def test_every_command_on_the_page_exists() -> None:
    from tests.test_help import all_commands

    known = set(all_commands())
    for line in re.findall(r"^awry [^\n#]+", PAGE.read_text(), re.MULTILINE):
        for command in line.split(";"):
            words = command.split()
            assert " ".join(words[:3]) in known or " ".join(words[:2]) in known, command
