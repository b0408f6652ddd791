"""docs/routing.md: its example is a configuration that decides as the page says."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from alerts.routing.inhibition import InhibitRule
from alerts.routing.intervals import Period
from alerts.routing.matchers import LABELS
from alerts.routing.routing import Routing
from alerts.routing.tree import Route
from monitor.settings import load_settings
from tests.support import ROOT
from tests.support.cli import all_commands

TEXT = (ROOT / "docs" / "routing.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
DESTINATIONS = "".join(f'[[destinations]]\nname = "{name}"\nkind = "console"\n' for name in ("chat", "oncall", "siem"))


def routing() -> Routing:
    Path("awry.toml").write_text(DESTINATIONS + EXAMPLE)
    return load_settings().routing


def test_the_example_decides_as_it_says(tmp_path: Path) -> None:
    found = routing()
    for alert, to in (
        ({"severity": "warning", "kind": "threshold"}, ["chat"]),
        ({"severity": "error", "kind": "threshold"}, ["siem"]),
        ({"severity": "critical", "kind": "threshold"}, ["siem", "oncall", "chat"]),
        ({"severity": "critical", "kind": "monitor"}, ["oncall", "chat"]),
        ({"severity": "warning", "tenant": "acme", "rule": "burst"}, ["oncall"]),
    ):
        assert list(found.destinations(alert)) == to, alert
    shop = found.destinations({"severity": "warning", "tenant": "shop"})["chat"]
    held = found.held(shop, datetime.fromisoformat("2026-12-24T23:00+01:00"))
    assert held is not None
    assert held.until == datetime.fromisoformat("2026-12-25T07:00+01:00")
    burst = found.destinations({"severity": "warning", "tenant": "shop", "rule": "burst"})["oncall"]
    assert found.held(burst, datetime.fromisoformat("2026-12-24T12:00+01:00")) is None
    assert found.held(burst, datetime.fromisoformat("2026-08-13T12:00+02:00")) is not None


def test_the_page_names_every_field_and_label() -> None:
    named = set(re.findall(r"\w+", TEXT))
    fields = {
        field.alias or name for model in (Route, InhibitRule, Period) for name, field in model.model_fields.items()
    }
    assert fields | set(LABELS) <= named


def test_its_commands_exist() -> None:
    known = all_commands()
    for command in re.findall(r"^awry ([^\n#]+)", TEXT, re.MULTILINE):
        words = command.split()
        options = {option for parameter in known[" ".join(["awry", *words[:2]])].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, command
