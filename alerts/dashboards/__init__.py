"""Grafana dashboards and provisioning files generated from code, and a push to a running Grafana."""

from __future__ import annotations

from alerts.dashboards.investigate import investigate
from alerts.dashboards.overview import overview
from alerts.dashboards.panels import Json
from alerts.dashboards.probe import probe
from alerts.dashboards.worker import worker


def dashboards() -> dict[str, Json]:
    """Every dashboard by its uid."""
    return {board["uid"]: board for board in (overview(), probe(), investigate(), worker())}
