"""What a check found: fine, to be looked at, or broken, and what to do.

Contract: a finding names the setting or the part that it is about, and holds no secret and no prompt text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from monitor.settings import Settings

Level = Literal["ok", "warning", "fault"]
# By severity; the place in it is the exit status of awry doctor.
LEVELS: tuple[Level, ...] = ("ok", "warning", "fault")


@dataclass(frozen=True)
class Finding:
    """`do` is empty where all is well."""

    part: str
    level: Level
    found: str
    do: str = ""


Check = Callable[[Settings], Iterable[Finding]]


def ok(part: str, found: str) -> Finding:
    return Finding(part, "ok", found)


def warning(part: str, found: str, do: str) -> Finding:
    return Finding(part, "warning", found, do)


def fault(part: str, found: str, do: str) -> Finding:
    return Finding(part, "fault", found, do)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level; ok where there is no finding."""
    return max((each.level for each in findings), key=LEVELS.index, default="ok")
