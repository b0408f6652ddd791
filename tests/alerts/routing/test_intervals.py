"""Time intervals: what a moment is in, over zones, ends of months and nights; and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from alerts.routing.intervals import TimeInterval, end_after


def interval(*periods: dict[str, Any]) -> TimeInterval:
    return TimeInterval.model_validate({"name": "some", "time_intervals": list(periods)})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NIGHT = [{"start_time": "22:00", "end_time": "24:00"}, {"start_time": "00:00", "end_time": "06:00"}]


@pytest.mark.parametrize(
    ("period", "moment", "holds"),
    [
        ({"times": NIGHT}, "2026-03-02T21:59", False),
        ({"times": NIGHT}, "2026-03-02T22:00", True),
        ({"times": NIGHT}, "2026-03-02T23:59", True),
        ({"times": NIGHT}, "2026-03-03T05:59", True),
        ({"times": NIGHT}, "2026-03-03T06:00", False),
        # Summer time began in Berlin on 29 March: 06:00 there is 05:00, then 04:00 UTC.
        ({"times": NIGHT, "location": "Europe/Berlin"}, "2026-03-28T04:59", True),
        ({"times": NIGHT, "location": "Europe/Berlin"}, "2026-03-28T05:00", False),
        ({"times": NIGHT, "location": "Europe/Berlin"}, "2026-03-30T04:00", False),
        # 2 March 2026 is a Monday; in Auckland it begins at 11:00 UTC of Sunday.
        ({"weekdays": ["monday:friday"]}, "2026-03-01T12:00", False),
        ({"weekdays": ["monday:friday"], "location": "Pacific/Auckland"}, "2026-03-01T12:00", True),
        ({"weekdays": ["saturday", "sunday"]}, "2026-03-01T12:00", True),
        ({"days_of_month": ["1:5"]}, "2026-03-05T23:59", True),
        ({"days_of_month": ["1:5"]}, "2026-03-06T00:00", False),
        ({"days_of_month": ["-1"]}, "2026-02-28T12:00", True),
        ({"days_of_month": ["-1"]}, "2028-02-28T12:00", False),
        ({"days_of_month": ["-3:-1"]}, "2026-04-28T12:00", True),
        ({"days_of_month": ["30:31"]}, "2026-02-28T12:00", False),
        ({"months": ["june:august", "12"]}, "2026-12-24T12:00", True),
        ({"months": ["june:august"]}, "2026-09-01T00:00", False),
        ({"years": ["2027"]}, "2026-12-31T23:59", False),
        ({"weekdays": ["friday"], "days_of_month": [13]}, "2026-02-13T12:00", True),
        ({"weekdays": ["friday"], "days_of_month": [13]}, "2026-02-06T12:00", False),
        ({}, "2026-02-06T12:00", True),
    ],
)
def test_a_moment_is_in_a_period_where_all_that_is_given_holds(
    period: dict[str, Any], moment: str, holds: bool
) -> None:
    assert interval(period).holds(at(moment)) is holds


def test_any_of_its_periods_will_do() -> None:
    both = interval({"weekdays": ["saturday:saturday"]}, {"times": NIGHT})
    assert both.holds(at("2026-02-28T12:00"))
    assert both.holds(at("2026-03-02T23:00"))
    assert not both.holds(at("2026-03-02T12:00"))


def test_the_end_is_the_first_minute_that_none_holds() -> None:
    night = [interval({"times": NIGHT})]
    assert end_after(night, at("2026-03-02T23:30:40")) == at("2026-03-03T06:00")
    weekend = [*night, interval({"weekdays": ["saturday", "sunday"]})]
    assert end_after(weekend, at("2026-02-27T23:00")) == at("2026-03-02T06:00"), "one goes over into the other"
    assert end_after(night, at("2026-03-02T12:00"), inside=False) == at("2026-03-02T22:00")
    assert end_after([interval({})], at("2026-03-02T12:00")) is None


@pytest.mark.parametrize(
    ("period", "said"),
    [
        ({"times": [{"start_time": "22:00", "end_time": "06:00"}]}, "end_time must be after start_time"),
        ({"times": [{"start_time": "9:00", "end_time": "17:00"}]}, "'9:00' is no time; write HH:MM"),
        ({"times": [{"start_time": "09:00", "end_time": "24:30"}]}, "'24:30' is no time"),
        ({"weekdays": ["mon"]}, "'mon' is none of the weekdays sunday, monday"),
        ({"weekdays": ["friday:monday"]}, "write FIRST:LAST, the first one first"),
        ({"days_of_month": ["0"]}, "'0' is none of the days of the month"),
        ({"days_of_month": ["32"]}, "'32' is none of the days"),
        ({"days_of_month": ["5:1"]}, "the first one first"),
        ({"months": ["13"]}, "'13' is none of the months"),
        ({"months": []}, "write a list of months"),
        ({"location": "Berlin"}, "'Berlin' is no time zone"),
        ({"location": "../../etc/passwd"}, "is no time zone"),
        ({"weekday": ["monday"]}, "weekday"),
    ],
)
def test_what_is_no_interval_is_refused(period: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        interval(period)
    assert said in str(refused.value)


def test_the_end_may_be_months_ahead_and_stand_where_clocks_are_changed() -> None:
    last_day = {
        "days_of_month": ["-1"],
        "months": ["december"],
        "times": [{"start_time": "09:00", "end_time": "17:00"}],
    }
    assert end_after([interval(last_day)], at("2026-11-30T17:00"), inside=False) == at("2026-12-31T09:00")
    spring = {"location": "Europe/Berlin", "times": [{"start_time": "02:30", "end_time": "05:00"}]}
    assert end_after([interval(spring)], at("2026-03-29T00:00"), inside=False) == at("2026-03-29T01:00")
