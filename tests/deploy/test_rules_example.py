"""The rules file that people begin with can be used, and the page that explains it names every field."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

from alerts.rules.checks import Check
from alerts.rules.file import KINDS, load_rules
from alerts.rules.model import Flagged
from storage.coordinates import Coordinates
from tests.support import ROOT
from tests.support.cli import all_commands

EXAMPLE, PAGE = ROOT / "deploy" / "rules.example.toml", ROOT / "docs" / "alerts.md"


def test_the_example_can_be_used() -> None:
    found = load_rules(EXAMPLE)
    assert {type(rule).__name__ for rule in found.all} == {"ThresholdRule", "RateRule", "MonitorRule"}
    assert [rule.name for rule in found.all if rule.shadow] == ["escalation", "tenant-rate"]


def test_the_example_has_a_rule_on_turns() -> None:
    """It sees turns that lead up to something, where no score is flagged, and the same turns once."""
    (rule,) = [rule for rule in load_rules(EXAMPLE).threshold if rule.name == "escalation"]
    calm = Flagged("drift", 0.45, 0.5, "shop", "m", Coordinates("topic", 0, 1), "m1", "talk", flagged=False)
    rising = replace(calm, trajectory=0.45, path_length=0.6, turn=4, turn_new=True)
    assert rule.measure == "trajectory"
    assert rule.matches(rising)
    assert not any(map(rule.matches, (calm, replace(rising, trajectory=0.4), replace(rising, turn_new=False))))
    assert rule.dedup_key(rising) == "escalation:drift:shop:talk"


def test_the_page_names_every_field_and_check() -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE.read_text()))
    fields = {field.alias or name for kind in KINDS.values() for name, field in kind.model_fields.items()}
    assert fields | set(get_args(Check)) <= named


def test_every_command_and_option_on_the_page_exists() -> None:
    known = all_commands()
    written = [c for line in re.findall(r"^awry [^\n#]+", PAGE.read_text(), re.MULTILINE) for c in line.split(";")]
    assert len(written) > 10
    for command in written:
        words = command.split()
        found = known.get(" ".join(words[:3])) or known[" ".join(words[:2])]
        options = {option for parameter in found.params for option in parameter.opts}
        assert {w for w in words if w.startswith("--")} <= options, command
