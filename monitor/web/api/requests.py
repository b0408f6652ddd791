"""Request bodies and query parameters. Unknown fields are refused, so that a misspelt filter does not match everything.

Contract: a validator's message names the fix and never the value.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from alerts.lifecycle.actions import MAX_SILENCE, Verdict
from alerts.lifecycle.states import State
from alerts.rules.durations import format_duration, parse_duration
from alerts.rules.model import Severity

Name = Annotated[str, Field(min_length=1, max_length=500)]
Note = Annotated[str, Field(max_length=1000)]
MAX_STARS = 3
MATCHERS = ("rule", "probe", "tenant", "model")

_STARS = re.compile(r"\*+")


def _duration(written: Any) -> str:
    try:
        lasting = parse_duration(written)
    except ValueError:
        raise ValueError("is no duration; write for example 90s, 10m, 1h30m or 2d") from None
    if not timedelta() < lasting <= MAX_SILENCE:
        raise ValueError(f"must be from 1s to {format_duration(MAX_SILENCE)}")
    return str(written)


Lasting = Annotated[str, Field(max_length=40, examples=["2h", "1d12h"]), AfterValidator(_duration)]


def _pattern(written: str) -> str:
    # Workers match it against every alert that opens: it stays cheap.
    if len(_STARS.findall(written)) > MAX_STARS:
        raise ValueError(f"has too many `*`; use {MAX_STARS} at most")
    return written


Pattern = Annotated[Name, AfterValidator(_pattern)]


class RequestModel(BaseModel):
    """Base: refuses unknown fields without repeating their names."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_fields(cls, given: Any) -> Any:
        names = [field.alias or name for name, field in cls.model_fields.items()]
        if isinstance(given, dict) and not set(given) <= set(names):
            raise ValueError(f"has a field that is not known here; known are {', '.join(names)}")
        return given


class AlertFilters(RequestModel):
    """Query parameters of the list of alerts."""

    state: State | None = None
    rule: Name | None = None
    probe: Name | None = None
    tenant: Name | None = None
    model: Name | None = None
    severity: Severity | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, max_length=200, description="`next` of the previous page; use the same filters")


class MessageFilters(RequestModel):
    """Query parameters of the search for messages. Names are matched whole."""

    message_id: Name | None = Field(None, description="the `id` of the message as it was sent")
    user: Name | None = None
    tenant: Name | None = None
    conversation: Name | None = None
    status: Literal["scored", "truncated", "skipped", "invalid", "failed"] | None = None
    since: Name | None = Field(None, description="stored, or scored where a score is asked for, at this time or later")
    until: Name | None = Field(None, description="the same, before this time")
    probe: Name | None = Field(None, description="with a score of this probe")
    score_from: Name | None = Field(None, description="with a score from this on, in class gaps")
    score_to: Name | None = Field(None, description="with a score up to this, in class gaps")
    flagged: Literal["true", "false"] | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, max_length=4000, description="`next` of the previous page; use the same filters")


class Judgement(RequestModel):
    """A reviewer's verdict on the messages of the alert so far; the latest one counts."""

    verdict: Verdict
    note: Note | None = Field(None, description="the reason, kept in the audit; do not quote message text")


class AlertSilence(RequestModel):
    """Suppress notifications of one alert for a while, unless its severity increases."""

    lasting: Lasting = Field("1h", alias="for")
    comment: Note = ""


class NewSilence(RequestModel):
    """Suppress notifications of all matching alerts for a while, up to a severity."""

    rule: Pattern | None = Field(None, description=f"a name, or a pattern with `*`, {MAX_STARS} at most")
    probe: Pattern | None = None
    tenant: Pattern | None = None
    model: Pattern | None = None
    lasting: Lasting = Field("1h", alias="for")
    up_to: Severity = "critical"
    comment: Note = ""

    @model_validator(mode="after")
    def _any_matcher(self) -> NewSilence:
        if not self.matchers():
            raise ValueError(f"matches nothing: give some of {', '.join(MATCHERS)}")
        return self

    def matchers(self) -> dict[str, str]:
        patterns = {name: getattr(self, name) for name in MATCHERS}
        return {name: pattern for name, pattern in patterns.items() if pattern is not None}
