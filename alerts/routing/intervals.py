"""Time intervals, as Alertmanager writes them: times, weekdays, days of the month, months and years in a time zone.

Contract: a `TimeInterval` has a name and any number of `Period`s, and holds a moment if one of them does. In a period
each list that is given must hold the moment; one that is left out holds any. Times are from `start_time` up to and
without `end_time`, which may be 24:00; days of the month may count from its end (-1 is the last). Without `location`
they are UTC. `end_after` says when an interval that holds now ends, to the minute, at most a year ahead.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = tuple(name.lower() for name in calendar.month_name[1:])
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
_LOOK_AHEAD_DAYS = 366

# First and last, both included.
Range = tuple[int, int]


def _ranges(written: object, what: str, names: Sequence[str], first: int, least: int, most: int) -> tuple[Range, ...]:
    """Ranges such as `monday:friday`, `1:5` or a single one."""
    if isinstance(written, str | int) and not isinstance(written, bool):
        written = (written,)
    if not isinstance(written, list | tuple) or not written:
        raise ValueError(f"write a list of {what}")
    found = []
    for each in written:
        if isinstance(each, tuple):
            found.append(each)
            continue
        ends = str(each).lower().split(":")
        numbers = [_number(end, what, names, first, least, most) for end in ends]
        if len(numbers) > 2 or (len(numbers) == 2 and numbers[0] > numbers[1] and (numbers[0] > 0) == (numbers[1] > 0)):
            raise ValueError(f"{each!r} is no range of {what}: write FIRST:LAST, the first one first")
        found.append((numbers[0], numbers[-1]))
    return tuple(found)


def _number(written: str, what: str, names: Sequence[str], first: int, least: int, most: int) -> int:
    if written in names:
        return names.index(written) + first
    if re.fullmatch(r"-?[1-9][0-9]{0,3}", written) and least <= int(written) <= most:
        return int(written)
    raise ValueError(f"{written!r} is none of the {what}" + (f" {', '.join(names)}" if names else ""))


def _weekdays(written: object) -> object:
    return _ranges(written, "weekdays", _WEEKDAYS, 0, 1, 0)


def _days(written: object) -> object:
    return _ranges(written, "days of the month, 1 to 31 or -31 to -1", (), 1, -31, 31)


def _months(written: object) -> object:
    return _ranges(written, "months", _MONTHS, 1, 1, 12)


def _years(written: object) -> object:
    return _ranges(written, "years", (), 1, 1, 9999)


class TimeRange(BaseModel):
    """From `start_time` until `end_time`, within one day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_time: str
    end_time: str

    @field_validator("start_time", "end_time")
    @classmethod
    def _time(cls, value: str) -> str:
        if not _TIME.fullmatch(value):
            raise ValueError(f"{value!r} is no time; write HH:MM, 00:00 to 24:00")
        return value

    @model_validator(mode="after")
    def _in_order(self) -> TimeRange:
        if self.start_time >= self.end_time:
            raise ValueError(
                "end_time must be after start_time; a night is two ranges, 22:00 to 24:00 and 00:00 to 06:00"
            )
        return self

    def holds(self, at: datetime) -> bool:
        """Whether the time of day is in it."""
        return self.start_time <= f"{at:%H:%M}" < self.end_time


class Period(BaseModel):
    """What is given must hold; an empty one holds always."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    times: tuple[TimeRange, ...] = ()
    weekdays: Annotated[tuple[Range, ...], BeforeValidator(_weekdays)] = ()
    days_of_month: Annotated[tuple[Range, ...], BeforeValidator(_days)] = ()
    months: Annotated[tuple[Range, ...], BeforeValidator(_months)] = ()
    years: Annotated[tuple[Range, ...], BeforeValidator(_years)] = ()
    location: str = "UTC"

    @field_validator("location")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is no time zone; write for example Europe/Berlin") from None
        return value

    def holds(self, at: datetime) -> bool:
        """Whether a moment is in it."""
        here = at.astimezone(ZoneInfo(self.location))
        return (
            (not self.times or any(each.holds(here) for each in self.times))
            and _in(self.weekdays, here.isoweekday() % 7)
            and (not self.days_of_month or any(_holds_day(each, here) for each in self.days_of_month))
            and _in(self.months, here.month)
            and _in(self.years, here.year)
        )


class TimeInterval(BaseModel):
    """A named set of periods, which routes refer to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    time_intervals: tuple[Period, ...] = Field(min_length=1)

    def holds(self, at: datetime) -> bool:
        """Whether a moment is in one of the periods."""
        return any(period.holds(at) for period in self.time_intervals)


def holding(intervals: Sequence[TimeInterval], at: datetime) -> list[str]:
    """The names of those that hold a moment."""
    return [interval.name for interval in intervals if interval.holds(at)]


@lru_cache(maxsize=256)
def _end_after(intervals: tuple[TimeInterval, ...], minute: datetime, inside: bool) -> datetime | None:
    for days in range(-1, _LOOK_AHEAD_DAYS + 1):
        day = minute.date() + timedelta(days=days)
        changes = {change for interval in intervals for p in interval.time_intervals for change in _changes(p, day)}
        for change in sorted(changes):
            if change > minute and bool(holding(intervals, change)) != inside:
                return change
    return None


def _changes(period: Period, day: date) -> Iterator[datetime]:
    """The moments of a local day at which a period may begin or end."""
    zone = ZoneInfo(period.location)
    midnight = datetime.combine(day, time(), zone)
    following = datetime.combine(day + timedelta(days=1), time(), zone)
    if midnight.utcoffset() != following.utcoffset():
        # Clocks are changed: times of the day are left out, or come twice.
        first, last = midnight.astimezone(UTC), following.astimezone(UTC)
        yield from (first + timedelta(minutes=n) for n in range(int((last - first).total_seconds()) // 60))
        return
    yield midnight.astimezone(UTC)
    for each in period.times:
        for written in (each.start_time, each.end_time):
            if written != "24:00":  # the next day's midnight
                yield datetime.combine(day, time.fromisoformat(written), zone).astimezone(UTC)


def end_after(intervals: Sequence[TimeInterval], at: datetime, *, inside: bool = True) -> datetime | None:
    """When the first minute begins that none of them holds, or, with `inside` False, that one of them holds; None where
    that is more than a year ahead."""
    return _end_after(tuple(intervals), at.astimezone(UTC).replace(second=0, microsecond=0), inside)


def _in(ranges: Sequence[Range], number: int) -> bool:
    return not ranges or any(first <= number <= last for first, last in ranges)


def _holds_day(days: Range, at: datetime) -> bool:
    """Days that count from the end are those of this month; what it does not have is cut off."""
    length = calendar.monthrange(at.year, at.month)[1]
    first, last = (day if day > 0 else length + 1 + day for day in days)
    return max(first, 1) <= at.day <= min(last, length)
