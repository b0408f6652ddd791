"""What goes wrong with a Grafana. Messages name the setting and the fix, and hold no token."""

from __future__ import annotations

from alerts.errors import AlertsError


class GrafanaError(AlertsError):
    """A Grafana that cannot be reached or refuses, or a folder that cannot be written."""
