"""Faults of settings, and their values, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from monitor.cli.render.tables import print_line, print_table
from monitor.config.show import Shown
from monitor.setting_sources import Fault, Place


def print_faults(faults: Iterable[Fault]) -> None:
    """Two lines a fault: what is wrong and where, and what mends it."""
    for fault in faults:
        print_line(f"{fault.place}: {fault.setting}: {fault.what}" if fault.setting else f"{fault.place}: {fault.what}")
        print_line(f"  fix: {fault.fix}")


def fault_document(fault: Fault) -> dict[str, Any]:
    """A fault for programs."""
    return {"setting": fault.setting or None, **_place(fault.place), "fault": fault.what, "fix": fault.fix}


def print_shown(shown: Iterable[Shown]) -> None:
    """One line a setting."""
    print_table(
        ("setting", "value", "from"),
        [(each.name, _written(each.value), ", ".join(map(str, each.places))) for each in shown],
    )


def shown_document(shown: Shown) -> dict[str, Any]:
    """A setting for programs."""
    return {"name": shown.name, "value": shown.value, "from": [_place(place) for place in shown.places]}


def _place(place: Place) -> dict[str, Any]:
    in_file = place.kind in ("file", "secret file")
    return {
        "kind": place.kind,
        "file": place.name if in_file else None,
        "line": place.line,
        "environment": place.name if place.kind == "environment" else None,
    }


def _written(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
