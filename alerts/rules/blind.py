"""Whether the monitor is blind: then nothing that it does not see says that a danger is over.

Contract: `blindness` gives the reasons, none where it sees: a live alert of a rule on the monitor that is about not
seeing (`no_traffic`, `no_worker`, `delay`, `fail_open`, `reading_gaps`, `readings_silent`), no heartbeat of any worker
on a topic for five minutes, or workers that are five minutes behind; of the last two no rule is needed. While it is
blind, nothing is resolved for want of messages: not by `resolve_after`, nor because a rate or a count of messages is
low. The words stay the same as long as the reason does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta

from sqlalchemy import Connection, func, select

from alerts.rules.checks import Check
from alerts.rules.model import MonitorRule, RateRule, Rules
from storage.schema import alerts, workers

_ABOUT_SEEING: frozenset[Check] = frozenset(
    {"no_traffic", "no_worker", "delay", "fail_open", "reading_gaps", "readings_silent"}
)
# What a clear value of these says, it says also when nothing is read.
_KNOWN_ALL_THE_SAME: frozenset[Check] = frozenset({"no_traffic", "no_worker", "probe_stale"})
_PATIENCE = timedelta(minutes=5)
_HEARTBEAT = timedelta(minutes=2)


def blindness(connection: Connection, rules: Rules) -> tuple[str, ...]:
    """Why the monitor does not see all messages now."""
    names = [rule.name for rule in filter(about_seeing, rules.monitor)]
    of_them = (alerts.c.kind == "monitor", alerts.c.rule.in_(names), alerts.c.state != "resolved")
    live = select(alerts.c.rule).where(*of_them)
    fires = sorted(set(connection.execute(live).scalars())) if names else []
    workers_say = _workers(connection)
    return (*((workers_say,) if workers_say else ()), *map(_fires, fires))


def about_seeing(rule: RateRule | MonitorRule) -> bool:
    """Whether an alert of the rule means that the monitor is blind."""
    return isinstance(rule, MonitorRule) and rule.check in _ABOUT_SEEING and not rule.shadow


def may_clear(rule: RateRule | MonitorRule, blind: Sequence[str]) -> bool:
    """Whether a clear value of a rule means that it is clear. What alone makes the monitor blind ends that way."""
    if isinstance(rule, MonitorRule) and rule.check in _KNOWN_ALL_THE_SAME:
        return True
    return set(blind) <= {_fires(rule.name)}


def _fires(rule: str) -> str:
    return f"{rule} fires"


def _workers(connection: Connection) -> str | None:
    """A file's worker ends with its file: only those on topics count."""
    on_topics = workers.c.lag_unit == "messages"
    silent = func.max(workers.c.seen_at) < func.now() - _PATIENCE
    seen = connection.execute(select(func.max(workers.c.seen_at), silent).where(on_topics)).one()
    if seen[1]:
        return f"no heartbeat of a worker since {seen[0].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    behind = select(func.max(workers.c.oldest_seconds)).where(on_topics, workers.c.seen_at > func.now() - _HEARTBEAT)
    late = connection.execute(behind).scalar()
    return "workers are more than 5m behind" if late is not None and late > _PATIENCE.total_seconds() else None
