"""Grafana: dashboards and provisioning made from code, and a push to a Grafana that is already there."""

from __future__ import annotations

from alerts.dashboards.investigate import investigate
from alerts.dashboards.overview import overview
from alerts.dashboards.panels import Json
from alerts.dashboards.probe import probe
from alerts.dashboards.worker import worker


def dashboards() -> dict[str, Json]:
    """Every dashboard by its uid."""
    return {made["uid"]: made for made in (overview(), probe(), investigate(), worker())}
