"""Grouping: a burst is one notification, nothing is lost, nothing overtakes."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from alerts.delivery.grouping import LastNotification, PendingEvent, Policy, next_group

START = datetime(2026, 3, 1, tzinfo=UTC)
BY_PROBE = Policy(("rule", "probe"), wait=10, interval=300)
FIRING = ("alert.opened", "alert.worsened", "alert.reopened")
EVENTS = (*FIRING, "alert.acknowledged", "alert.resolved", "alert.something")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def row(alert: int, event: str = "alert.opened", seconds: float = 0, severity: str = "warning") -> PendingEvent:
    return PendingEvent(uuid.uuid4(), uuid.UUID(int=alert), event, severity, at(seconds))


def test_a_burst_is_its_first_alert_at_once_and_one_notification_of_the_others() -> None:
    rows = [row(n, seconds=n / 100) for n in range(1000)]
    assert next_group(rows[:1], BY_PROBE, at(0)) == (rows[:1], None)
    first = LastNotification(at(0), "warning", after_quiet=True)
    assert next_group(rows[1:], BY_PROBE, at(9.99), first) == ((), at(10))
    assert next_group(rows[1:], BY_PROBE, at(10), first) == (rows[1:], None)
    # A flood that goes on is told every interval.
    second = LastNotification(at(10), "warning")
    assert next_group([row(1, seconds=11)], BY_PROBE, at(11), second) == ((), at(310))


def test_a_burst_that_is_there_at_once_is_one_notification() -> None:
    rows = [row(n) for n in range(1000)]
    assert next_group(rows, BY_PROBE, at(0)) == (rows, None)


def test_a_group_that_was_quiet_for_the_interval_is_notified_of_at_once() -> None:
    last = LastNotification(at(0), "critical", after_quiet=True)
    late = row(1, seconds=300)
    assert next_group([late], BY_PROBE, at(300), last) == ([late], None)
    assert next_group([row(1, seconds=200)], BY_PROBE, at(200), last) == ((), at(300)), "it is not of the burst"


def test_the_next_notification_waits_for_the_interval() -> None:
    last = LastNotification(at(10), "warning")
    assert next_group([row(1, seconds=20)], BY_PROBE, at(40), last) == ((), at(310))
    assert len(next_group([row(1, seconds=20)], BY_PROBE, at(310), last)[0]) == 1


def test_what_is_more_severe_than_the_last_notification_does_not() -> None:
    rows = [row(1, seconds=20), row(2, seconds=21, severity="critical")]
    assert next_group(rows, BY_PROBE, at(29), LastNotification(at(10), "error")) == ((), at(30))
    assert next_group(rows, BY_PROBE, at(30), LastNotification(at(10), "error")) == (rows, None)
    assert next_group(rows, BY_PROBE, at(30), LastNotification(at(10), "critical")) == ((), at(310))


def test_an_acknowledgement_goes_at_once() -> None:
    rows = [row(1, "alert.acknowledged", 5), row(2, "alert.resolved", 5), row(3, "alert.opened", 5)]
    assert next_group(rows, BY_PROBE, at(5), LastNotification(at(0), "warning")) == ([rows[0]], None)


def test_a_resolution_waits_for_company_and_for_its_own_opening() -> None:
    rows = [row(1, "alert.opened", 20), row(1, "alert.resolved", 25), row(2, "alert.resolved", 26)]
    held = LastNotification(at(10), "warning")
    assert next_group(rows, BY_PROBE, at(30), held) == ((), at(36))
    assert next_group(rows, BY_PROBE, at(36), held) == ([rows[2]], None), "the other alert's does not wait"
    assert next_group(rows, BY_PROBE, at(310), held) == ([rows[0]], None)


def test_a_clock_that_was_set_back_delays_nothing() -> None:
    rows = [row(1, seconds=3600), row(2, "alert.resolved", 3601)]
    assert next_group(rows, BY_PROBE, at(0), LastNotification(at(3590), "critical")) == ([rows[0]], None)
    assert next_group([row(1, seconds=0)], BY_PROBE, at(10), LastNotification(at(3590), "critical"))[1] is None
    assert next_group([row(1, seconds=0.1)], BY_PROBE, at(0)) == ((), at(0.1)), "stored while this look began"


def test_without_grouping_it_is_a_notification_an_event() -> None:
    rows = [row(1), row(1, "alert.worsened"), row(1, "alert.resolved")]
    assert next_group(rows, Policy(), at(0)) == (rows[:1], None)


def test_for_a_channel_that_resends_all_is_one_notification() -> None:
    rows = [row(1), row(2, "alert.resolved")]
    assert next_group(rows, Policy(whole=True), at(0)) == (rows, None)


def test_nothing_waits_for_nothing() -> None:
    assert next_group([], BY_PROBE, at(0)) == ((), None)


def test_a_key_is_what_alerts_have_in_common() -> None:
    data = {"rule": "threshold", "probe": "dri:ft", "tenant": None, "dedup_key": "threshold:dri%3Aft:-:-"}
    assert BY_PROBE.group_key(data) == "threshold:dri%3Aft"
    assert BY_PROBE.group_key(data | {"probe": "dri_ft"}) == "threshold:dri_ft"
    assert Policy(("tenant", "rule")).group_key(data) == "-:threshold"
    assert Policy(("tenant", "rule")).group_key(data | {"tenant": "-"}) == "%2D:threshold"
    assert Policy().group_key(data) == "threshold:dri%3Aft:-:-"
    assert len(Policy(("probe",)).group_key({"probe": "x" * 999})) == 255


waiting = st.lists(
    st.builds(
        row,
        st.integers(1, 4),
        st.sampled_from(EVENTS),
        st.floats(0, 1000),
        st.sampled_from(["warning", "error", "critical"]),
    ),
    max_size=25,
)


@given(waiting, st.sampled_from([BY_PROBE, Policy(), Policy(whole=True), Policy(("probe",))]))
def test_all_of_it_goes_out_once_and_in_each_alerts_order(rows: list[PendingEvent], policy: Policy) -> None:
    left, now = list(rows), START
    sent: list[PendingEvent] = []
    last: LastNotification | None = None
    for _ in range(10 * len(rows) + 10):
        members, until = next_group(left, policy, now, last)
        if until is not None:
            assert until > now
            now = until
            continue
        if not members:
            break
        assert policy.whole or len({m.kind for m in members}) == 1
        if members[0].kind == "firing":
            last = LastNotification(
                now, max(members, key=lambda m: ["warning", "error", "critical"].index(m.severity)).severity
            )
        sent += members
        left = [r for r in left if r not in members]
    assert left == []
    assert sorted(sent, key=rows.index) == rows
    for alert in {r.alert_id for r in rows}:
        assert [r for r in sent if r.alert_id == alert] == [r for r in rows if r.alert_id == alert]


@given(waiting)
def test_notifications_about_firing_alerts_are_an_interval_apart_unless_more_severe(rows: list[PendingEvent]) -> None:
    last = LastNotification(at(2000), "critical")
    members, until = next_group([r for r in rows if r.event in FIRING], BY_PROBE, at(2299), last)
    assert members == ()
    assert until in (None, at(2300))
