"""YAML for Grafana's provisioning files, out of dictionaries, lists and scalars: as much of it as those need.

Contract: what a reader of YAML makes of the text equals the value; keys keep their order. Strings that could be read as
something else are quoted as JSON does it, which YAML understands.
"""

from __future__ import annotations

import json
import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z$/][A-Za-z0-9_${}./-]*( [A-Za-z0-9_${}./-]+)*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def dump(value: dict[str, Any], comment: str = "") -> str:
    """The text of a file, with a comment at its head."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + "\n".join(_mapping(value, 0)) + "\n"


def _mapping(value: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for key, one in value.items():
        lead = "  " * depth + f"{_scalar(key)}:"
        if isinstance(one, (dict, list)) and one:
            lines += [lead, *_nested(one, depth + 1)]
        else:
            lines.append(f"{lead} {_scalar(one)}")
    return lines


def _nested(value: dict[str, Any] | list[Any], depth: int) -> list[str]:
    if isinstance(value, dict):
        return _mapping(value, depth)
    lines = []
    for one in value:
        inner = (
            _nested(one, depth + 1) if isinstance(one, (dict, list)) and one else ["  " * (depth + 1) + _scalar(one)]
        )
        # The first line of what is inside stands behind the dash.
        lines += ["  " * depth + "- " + inner[0].lstrip(), *inner[1:]]
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
