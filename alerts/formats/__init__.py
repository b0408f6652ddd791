"""Events as other products read them: awry's own page, OCSF, ECS."""

from __future__ import annotations

import json
from typing import Any

from alerts.destinations import Format
from alerts.formats.ecs import ecs_event
from alerts.formats.ocsf import detection_finding
from alerts.senders.base import Event


def render(event: Event, form: Format, *, ascii_only: bool = False) -> str:
    """One event as compact JSON."""
    body: dict[str, Any] = event.body
    if form == "ocsf":
        body = detection_finding(event)
    elif form == "ecs":
        body = ecs_event(event)
    return json.dumps(body, separators=(",", ":"), ensure_ascii=ascii_only)
