"""What is added to an alert from the configuration: links to its runbook and its dashboard, from the owner's templates,
and what its rule says of itself.

A template is an address with names in braces, of LINK_FIELDS; their values are quoted, for they come from traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any
from urllib.parse import quote

LINK_FIELDS = ("alert_id", "dedup_key", "rule", "kind", "severity", "probe", "tenant", "model", "conversation_id")


def check_template(template: str) -> str:
    """The template itself; ValueError names what it cannot have."""
    if not template.startswith(("https://", "http://")):
        raise ValueError("must begin with https:// or http://")
    for _, name, form, conversion in Formatter().parse(template):
        if name is not None and (name not in LINK_FIELDS or form or conversion):
            raise ValueError(f"{{{name}}} is no field; there are {', '.join(LINK_FIELDS)}")
    return template


@dataclass(frozen=True)
class Links:
    """Templates that were checked, or None; `rules` as `alerts.rules.references.about_rules` gives it."""

    runbook: str | None = None
    dashboard: str | None = None
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def about(self, rule: str) -> dict[str, Any]:
        """`rule_id`, `tags` and `references` of a rule, as far as it has them."""
        return dict(self.rules.get(rule, {}))

    def of(self, data: Mapping[str, Any]) -> dict[str, str]:
        """The links of one alert."""
        values = {name: quote(str(data.get(name) or "-"), safe="") for name in LINK_FIELDS}
        urls = {
            "runbook": self.runbook and self.runbook.format_map(values),
            "dashboard": self.dashboard and self.dashboard.format_map(values),
        }
        return {name: str(url) for name, url in urls.items() if url}
