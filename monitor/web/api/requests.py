"""What the API is asked with: bodies and filters. A field that is not known is refused, so that a typing error in a
filter does not list everything, or silence everything.

Contract: what a validator says names the fix and never the value.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from alerts.lifecycle.actions import LONGEST_SILENCE, Verdict
from alerts.lifecycle.states import State
from alerts.rules.durations import format_duration, parse_duration
from alerts.rules.model import Severity

Name = Annotated[str, Field(min_length=1, max_length=500)]
Note = Annotated[str, Field(max_length=1000)]
STARS = 3
MATCHERS = ("rule", "probe", "tenant", "model")

_STARS = re.compile(r"\*+")


def _duration(written: Any) -> str:
    try:
        lasting = parse_duration(written)
    except ValueError:
        raise ValueError("is no duration; write for example 90s, 10m, 1h30m or 2d") from None
    if not timedelta() < lasting <= LONGEST_SILENCE:
        raise ValueError(f"must be from 1s to {format_duration(LONGEST_SILENCE)}")
    return str(written)


Lasting = Annotated[str, Field(max_length=40, examples=["2h", "1d12h"]), AfterValidator(_duration)]


def _pattern(written: str) -> str:
    # Workers match it against every alert that opens; time grows with the power of the stars' number.
    if len(_STARS.findall(written)) > STARS:
        raise ValueError(f"has too many `*`; use {STARS} at most")
    return written


Pattern = Annotated[Name, AfterValidator(_pattern)]


class Asked(BaseModel):
    """Refuses fields that it does not have, without repeating their names."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        names = [field.alias or name for name, field in cls.model_fields.items()]
        if isinstance(given, dict) and not set(given) <= set(names):
            raise ValueError(f"has a field that is not known here; known are {', '.join(names)}")
        return given


class Filters(Asked):
    """Which alerts, and how many of them."""

    state: State | None = None
    rule: Name | None = None
    probe: Name | None = None
    tenant: Name | None = None
    model: Name | None = None
    severity: Severity | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, max_length=200, description="`next` of the page before; the filters stay the same")


class Judgement(Asked):
    """A reviewer's verdict on the messages that the alert holds by now; the last one counts."""

    verdict: Verdict
    note: Note | None = Field(None, description="why, for the record; write no message's text here")


class AlertSilence(Asked):
    """Send nothing about one alert for a while, unless it gets graver."""

    lasting: Lasting = Field("1h", alias="for")
    comment: Note = ""


class NewSilence(Asked):
    """Send nothing for a while about all alerts that match, but for graver ones."""

    rule: Pattern | None = Field(None, description=f"a name, or a pattern with `*`, {STARS} at most")
    probe: Pattern | None = None
    tenant: Pattern | None = None
    model: Pattern | None = None
    lasting: Lasting = Field("1h", alias="for")
    up_to: Severity = "critical"
    comment: Note = ""

    @model_validator(mode="after")
    def _some(self) -> NewSilence:
        if not self.matchers():
            raise ValueError(f"matches nothing: give some of {', '.join(MATCHERS)}")
        return self

    def matchers(self) -> dict[str, str]:
        found = {name: getattr(self, name) for name in MATCHERS}
        return {name: pattern for name, pattern in found.items() if pattern is not None}
