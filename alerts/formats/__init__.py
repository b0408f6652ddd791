"""Formats of a notification: awry's own JSON, OCSF, ECS."""

from __future__ import annotations

import json
from typing import Any

from alerts.destinations import Format
from alerts.formats.ecs import ecs_event
from alerts.formats.ocsf import detection_finding
from alerts.senders.base import Notification


def render(notification: Notification, form: Format, *, ascii_only: bool = False) -> str:
    """A notification as compact JSON."""
    body: dict[str, Any] = notification.body
    if form == "ocsf":
        body = detection_finding(notification)
    elif form == "ecs":
        body = ecs_event(notification)
    return json.dumps(body, separators=(",", ":"), ensure_ascii=ascii_only)
