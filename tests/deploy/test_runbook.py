"""The runbook has every alert that awry ships, and sends nobody to a panel or a command that is not there."""

from __future__ import annotations

import json
import re
from typing import get_args

import yaml

from alerts.rules.checks import Check
from alerts.rules.file import KINDS
from tests.support import ROOT
from tests.support.cli import all_commands

DEPLOY = ROOT / "deploy"
RUNBOOK = (ROOT / "docs" / "operations.md").read_text().partition("## Runbook\n")[2].partition("\n## ")[0]


def first_cells() -> str:
    return " ".join(line.split("|")[1] for line in RUNBOOK.splitlines() if line.startswith("| "))


def test_every_alert_is_in_it() -> None:
    of_prometheus = yaml.safe_load((DEPLOY / "prometheus" / "awry.rules.yml").read_text())["groups"]
    of_grafana = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "alerting" / "awry.yml").read_text())["groups"]
    shipped = {rule["alert"] for group in of_prometheus for rule in group["rules"]}
    shipped |= {rule["uid"] for group in of_grafana for rule in group["rules"]}
    shipped |= set(get_args(Check))
    assert set(re.findall(r"`([\w-]+)`", first_cells())) == shipped
    assert all(f"{kind} rule" in first_cells() for kind in KINDS if kind != "monitor")


def test_panels_that_it_names_are_there() -> None:
    known = set()
    for path in (DEPLOY / "grafana" / "dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        known |= {board["title"].removeprefix("awry: ")} | {panel["title"] for panel in board["panels"]}
    named = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", RUNBOOK))
    assert len(named) > 10
    assert named <= known


def test_commands_that_it_names_are_there() -> None:
    known = all_commands()
    code = re.findall(r"`(awry [^`]+)`", RUNBOOK) + re.findall(r"^(awry [^\n#]+)", RUNBOOK, re.MULTILINE)
    assert len(code) > 10
    for command in code:
        words = command.split()
        found = known.get(" ".join(words[:3])) or known[" ".join(words[:2])]
        options = {option for parameter in getattr(found, "params", ()) for option in parameter.opts}
        assert {w for w in words if w.startswith("--")} <= options, command
