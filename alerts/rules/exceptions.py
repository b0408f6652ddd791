"""Exceptions from rules, each with an owner and an end: what is known, allowed and therefore not told.

Contract: an exception has matchers on the labels of an alert, who answers for it, why, and until when; at most a year
ahead, so that nobody forgets it. While it holds, what it matches opens no alert: it is counted as what a rule in shadow
would have opened is. After its end it has no effect. `until` is a date, the last day on which it holds, or a time; both
are UTC where they do not say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from alerts.routing.matchers import Matchers, match_all

LONGEST = timedelta(days=366)
EXPIRES_SOON = timedelta(days=14)

State = Literal["active", "expires soon", "expired"]
STATES: tuple[State, ...] = get_args(State)


def _end(written: object) -> object:
    if isinstance(written, str):
        try:
            written = (
                date.fromisoformat(written) if len(written) == len("2026-01-31") else datetime.fromisoformat(written)
            )
        except ValueError:
            raise ValueError(f"{written!r} is no date; write for example 2026-12-31") from None
    if isinstance(written, datetime):
        return written if written.tzinfo is not None else written.replace(tzinfo=UTC)
    if isinstance(written, date):
        return datetime.combine(written, time(), UTC) + timedelta(days=1)
    raise ValueError("write a date, for example 2026-12-31")


class RuleException(BaseModel):
    """One exception as it is written in a rules file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    matchers: Matchers
    owner: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=1000)
    until: Annotated[datetime, BeforeValidator(_end)]

    @field_validator("matchers")
    @classmethod
    def _some(cls, value: Matchers) -> Matchers:
        if not value:
            raise ValueError("write at least one: none matches every alert")
        return value

    @field_validator("owner", "reason")
    @classmethod
    def _said(cls, value: str) -> str:
        if not value.strip() or not value.isprintable():
            raise ValueError("must be one line of text")
        return value

    @field_validator("until")
    @classmethod
    def _within_a_year(cls, value: datetime) -> datetime:
        if value > datetime.now(UTC) + LONGEST:
            raise ValueError("is more than a year ahead; renew the exception when it ends")
        return value

    def state(self, now: datetime) -> State:
        """Whether it holds, and for long."""
        if now >= self.until:
            return "expired"
        return "expires soon" if now >= self.until - EXPIRES_SOON else "active"

    def holds(self, labels: Mapping[str, str], now: datetime) -> bool:
        """Whether it holds now for an alert with these labels."""
        return now < self.until and match_all(self.matchers, labels)

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self.matchers)) + "}"


def excepted(exceptions: Sequence[RuleException], labels: Mapping[str, str]) -> bool:
    """Whether one of them holds now."""
    return bool(exceptions) and any(each.holds(labels, datetime.now(UTC)) for each in exceptions)


def warnings(exceptions: Sequence[RuleException], now: datetime) -> list[str]:
    """A line for each that ends soon or is over."""
    said: dict[State, str] = {"expires soon": "ends on", "expired": "has no effect any more: it ended on"}
    return [
        f"exception {each} of {each.owner} {said[state]} {each.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        for each in exceptions
        if (state := each.state(now)) in said
    ]


def described(exceptions: Sequence[RuleException], now: datetime) -> list[dict[str, Any]]:
    """For tables and JSON."""
    return [
        {
            "matchers": [str(matcher) for matcher in each.matchers],
            "owner": each.owner,
            "reason": each.reason,
            "until": each.until.isoformat(),
            "state": each.state(now),
        }
        for each in exceptions
    ]
