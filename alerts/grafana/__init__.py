"""Grafana: dashboards and provisioning made from code, and a push to a Grafana that is already there."""

from __future__ import annotations

from alerts.grafana.investigate import investigate
from alerts.grafana.overview import overview
from alerts.grafana.parts import Json
from alerts.grafana.probe import probe
from alerts.grafana.worker import worker


def dashboards() -> dict[str, Json]:
    """Every dashboard by its uid."""
    return {made["uid"]: made for made in (overview(), probe(), investigate(), worker())}
