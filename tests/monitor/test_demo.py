"""The demo's settings, over whatever the owner has set."""

from __future__ import annotations

from pathlib import Path

from alerts.destinations import Destination
from alerts.routing.tree import Route
from monitor.demo import demo_settings
from monitor.settings import Settings


def test_its_alerts_go_to_no_destination_of_the_owners(tmp_path: Path) -> None:
    base = Settings(
        destinations=(Destination(name="on-call", kind="console"),),
        route=Route(destinations=("on-call",)),
    )
    assert base.routing.destinations({"severity": "low"}).keys() == {"on-call"}
    settings = demo_settings(base, tmp_path)
    assert [each.name for each in settings.destinations] == ["console"]
    assert settings.route is None
