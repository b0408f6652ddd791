"""The queries by which rate and monitor rules are measured.

Contract: each function returns the values that the tables have; a group of a rate rule with nothing flagged is left
out, and a check without data (no worker ever, no score in the window) gives no value rather than 0. Windows are of the
time of storing, by the database's clock, so a producer's timestamps cannot hide a burst. Scores of probes in shadow,
and replayed ones, do not count. A rate counts conversations once, as (tenant, conversation id), or messages.

Checks that count messages name the tenant that makes most of the newest ones, if one makes more than half. A tail
drift that is over because nobody sends any more has the value 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Double,
    Select,
    TextClause,
    and_,
    case,
    column,
    desc,
    distinct,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    true,
    tuple_,
)

from alerts.rules.checks import Check
from alerts.rules.drift import cuts, psi
from alerts.rules.in_use import measure_ages
from alerts.rules.keys import dedup_key
from alerts.rules.model import MonitorRule, RateRule
from alerts.rules.patterns import matches, matching
from alerts.rules.tails import measure_tails
from storage.schema import (
    UNREADABLE,
    alert_messages,
    alerts,
    messages,
    probes,
    reading_gaps,
    reading_instances,
    rule_states,
    scores,
    workers,
)

# Messages that one evaluation adds to an alert, and scores that drift is measured on.
_MAX_MESSAGES, _MAX_SCORES = 5000, 20_000
# Messages by which a check names the tenant that makes most of them.
_MAX_NAMED = 10_000
# Groups that a query names; when more are busy, it reads all.
_MAX_GROUPS = 50
# Lag and delay are those of workers with a heartbeat within this time.
_HEARTBEAT = timedelta(minutes=2)
# An engine that was silent for so long is no longer waited for.
_FORGOTTEN = timedelta(days=1)

_PLACE = ("source", "partition", "offset", "sub")
_COLUMNS = {"tenant": messages.c.tenant, "model": messages.c.model, "conversation": messages.c.conversation_id}
_FIELDS = {"tenant": "tenant", "model": "model", "conversation": "conversation_id"}


@dataclass(frozen=True)
class Subject:
    """The labels that a value belongs to; None where a rule does not group by it."""

    probe: str | None = None
    tenant: str | None = None
    model: str | None = None
    conversation_id: str | None = None


@dataclass(frozen=True)
class Measured:
    """One value of a rule, and the dedup key of its alert."""

    dedup_key: str
    subject: Subject
    value: float


def subject_key(rule: RateRule | MonitorRule, subject: Subject) -> str:
    """The dedup key of a rule's alert for a subject."""
    if isinstance(rule, MonitorRule):
        of_tenant = [subject.tenant] if rule.check == "tail_drift" and subject.tenant else []
        return dedup_key(rule.name, subject.probe or rule.check, of_tenant)
    labels = asdict(subject)
    return dedup_key(rule.name, subject.probe, [labels[_FIELDS[part]] for part in rule.per])


def measure_rate(connection: Connection, rule: RateRule) -> list[Measured]:
    """Flagged messages or conversations in the window by probe and group, where there are any."""
    names = [n for n in connection.execute(select(probes.c.name).distinct()).scalars() if matches(rule.probe, n)]
    parts = [_COLUMNS[part] for part in rule.per]
    groups: list[ColumnElement[Any]] = [scores.c.probe, *parts]
    query = select(*groups, _number(rule)).join_from(scores, messages, _same_message())
    query = query.where(scores.c.flagged, *_in_window(rule, names)).group_by(*groups)
    rows: list[Any] = list(connection.execute(query))
    # `of` matters only for groups with so many flagged ones that the rule would not be clear.
    many = [row for row in rows if row[-1] > rule.clear_limit]
    if rule.of is not None:
        rows = list(connection.execute(_among_the_last(rule, names, groups, many))) if many else []
    measured = []
    for row in rows:
        labels = {_FIELDS[part]: value for part, value in zip(rule.per, row[1:-1], strict=True)}
        subject = Subject(probe=row[0], **labels)
        measured.append(Measured(subject_key(rule, subject), subject, float(row[-1])))
    return measured


def _number(rule: RateRule) -> ColumnElement[Any]:
    if rule.counted == "messages":
        return func.count()
    conversation = messages.c.conversation_id
    talks = func.count(distinct(tuple_(messages.c.tenant, conversation))).filter(conversation.is_not(None))
    return talks + func.count().filter(conversation.is_(None))


def _among_the_last(
    rule: RateRule, names: Sequence[str], groups: list[ColumnElement[Any]], many: Sequence[Any]
) -> Select[Any]:
    """The number of flagged ones among the last `of` of each group in `many`; a conversation is as new as its newest
    message."""
    labelled = [group.label(f"g{i}") for i, group in enumerate(groups)]
    place = [scores.c[name] for name in _PLACE]
    newest: list[ColumnElement[Any]] = [scores.c.created_at, *place]
    flagged: ColumnElement[bool] = scores.c.flagged
    unit: list[ColumnElement[Any]] = []
    if rule.counted == "conversations":
        conversation = messages.c.conversation_id
        alone = [case((conversation.is_(None), each)) for each in place]
        unit = [*groups, messages.c.tenant, conversation, *alone]
        newest = [func.max(scores.c.created_at), messages.c.tenant, conversation, *alone]
        flagged = func.bool_or(scores.c.flagged)
    age = func.row_number().over(partition_by=groups, order_by=[desc(each) for each in newest]).label("age")
    scored = select(*labelled, flagged.label("flagged"), age).join_from(scores, messages, _same_message())
    chosen = (and_(*(g.is_not_distinct_from(v) for g, v in zip(groups, row[:-1], strict=True))) for row in many)
    these = or_(*chosen) if len(many) <= _MAX_GROUPS else true()
    recent = scored.where(*_in_window(rule, names), these).group_by(*unit).subquery()
    of = [recent.c[f"g{i}"] for i in range(len(groups))]
    return select(*of, func.count()).where(recent.c.flagged, recent.c.age <= rule.of).group_by(*of)


def flagged_messages(connection: Connection, rule: RateRule, subject: Subject, key: str) -> list[dict[str, Any]]:
    """The flagged messages of a group in the window, oldest first, without those that the key's alert has already."""
    continued = and_(alerts.c.dedup_key == key, or_(alerts.c.state != "resolved", _may_reopen(rule)))
    known = exists().where(
        alert_messages.c.alert_id.in_(select(alerts.c.id).where(continued)),
        *(alert_messages.c[name] == scores.c[name] for name in _PLACE),
    )
    labels = asdict(subject)
    of_subject = [_COLUMNS[part].is_not_distinct_from(labels[_FIELDS[part]]) for part in rule.per]
    place = [scores.c[name] for name in _PLACE]
    query = (
        select(*place, scores.c.day, messages.c.message_id, scores.c.score)
        .join_from(scores, messages, _same_message())
        .where(scores.c.flagged, *_in_window(rule, [str(subject.probe)]), *of_subject, ~known)
        .order_by(scores.c.created_at, *place)
        .limit(_MAX_MESSAGES)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def _may_reopen(rule: RateRule) -> ColumnElement[bool]:
    return and_(alerts.c.resolved_at > func.now() - rule.reopen_within, alerts.c.verdict.is_(None))


def _same_message() -> ColumnElement[bool]:
    same = (scores.c[name] == messages.c[name] for name in (*_PLACE, "day"))
    return and_(*same, messages.c.status.in_(("scored", "truncated")))


def _in_window(rule: RateRule, names: Sequence[str]) -> list[ColumnElement[bool]]:
    conditions = [
        scores.c.probe.in_(names),
        scores.c.created_at > func.now() - rule.window,
        scores.c.shadow.is_not(True),
        matching(rule.tenant, messages.c.tenant),
        matching(rule.model, messages.c.model),
    ]
    return conditions + ([messages.c.conversation_id.is_not(None)] if "conversation" in rule.per else [])


def measure_monitor(connection: Connection, rule: MonitorRule) -> list[Measured]:
    """The check's value; for drift and stale probes one for each probe, for tail drift also for its tenants."""
    if rule.check in _BY_PROBE:
        subjects = _BY_PROBE[rule.check](connection, rule)
        return [Measured(subject_key(rule, subject), subject, value) for subject, value in subjects.items()]
    query = _counting(rule, func.count()) if rule.check in _COUNTED else _monitor_query(rule)
    value = connection.execute(query).scalar()
    if value is None:
        return []
    key = subject_key(rule, Subject())
    named = rule.check in _COUNTED and value > rule.limit
    return [Measured(key, Subject(tenant=_main_tenant(connection, rule) if named else None), float(value))]


# What checks count; the conditions are those of the indexes, literally.
_UNSCORED = text("status IN ('skipped', 'invalid', 'failed')")
_COUNTED: dict[str, tuple[ColumnElement[bool] | TextClause, ...]] = {
    "dead_letters": (_UNSCORED, messages.c.status != "skipped"),
    "fail_open": (_UNSCORED,),
    "partial": (messages.c.partial.is_not(None),),
    "unreadable": (text(UNREADABLE),),
}


def _counting(rule: MonitorRule, *columns: ColumnElement[Any]) -> Select[Any]:
    """A query over the messages in the window that a check counts."""
    recent = messages.c.ingested_at > func.now() - rule.window
    return select(*columns).where(recent, *_COUNTED[rule.check]).select_from(messages)


def _main_tenant(connection: Connection, rule: MonitorRule) -> str | None:
    """The tenant of more than half of the newest messages that the check counts; None where no tenant is."""
    newest = _counting(rule, messages.c.tenant).order_by(desc(messages.c.ingested_at)).limit(_MAX_NAMED).subquery()
    share = func.count() * 2 > select(func.count()).select_from(newest).scalar_subquery()
    return connection.execute(select(newest.c.tenant).group_by(newest.c.tenant).having(share)).scalar()


def _monitor_query(rule: MonitorRule) -> Select[Any]:
    if rule.check == "reading_gaps":
        gaps = reading_gaps.c
        return select(func.count()).where(gaps.counted_at > func.now() - rule.window, gaps.filled_at.is_(None))
    if rule.check == "readings_silent":
        engine = reading_instances.c
        # Nobody reads them: that is for the rules on workers to say. One that was forgotten long ago is not waited for.
        read = exists().where(workers.c.seen_at > func.now() - _HEARTBEAT)
        silent = func.extract("epoch", func.now() - func.min(engine.last_seen_at))
        waited = engine.last_seen_at > func.now() - _FORGOTTEN
        return select(func.coalesce(silent, 0)).where(engine.state == "live", waited).having(read)
    if rule.check in ("no_traffic", "no_worker"):
        last = func.max(workers.c.stored_at if rule.check == "no_traffic" else workers.c.seen_at)
        return select(func.extract("epoch", func.now() - last))
    alive = workers.c.seen_at > func.now() - _HEARTBEAT
    if rule.check == "lag":
        return select(func.sum(workers.c.lag)).where(alive, workers.c.lag_unit == rule.units)
    return select(func.max(workers.c.oldest_seconds)).where(alive)


def _tails(connection: Connection, rule: MonitorRule) -> dict[Subject, float]:
    states = connection.execute(select(rule_states.c.subject).where(rule_states.c.rule == rule.name)).scalars()
    over: dict[Subject, float] = {Subject(**subject): 0.0 for subject in states}
    return over | {Subject(*key): value for key, value in measure_tails(connection, rule).items()}


def _of_probes(values: Mapping[str, float]) -> dict[Subject, float]:
    return {Subject(probe): value for probe, value in values.items()}


def measure_drift(connection: Connection, rule: MonitorRule) -> dict[str, float]:
    """PSI by probe, of one card: the newest that has quantiles and made enough of the latest scores in the window.
    Scores of other cards, and those of which the card is unknown, are compared with nothing."""
    newest_first = (probes.c.version.desc(), probes.c.registered_at.desc(), probes.c.digest)
    psi_by_probe: dict[str, float] = {}
    for name, digest, card in connection.execute(
        select(probes.c.name, probes.c.digest, probes.c.card).order_by(probes.c.name, *newest_first)
    ):
        quantiles = (card.get("calibration") or {}).get("quantiles") or []
        if not quantiles or name in psi_by_probe or not matches(rule.probe, name):
            continue
        edges = cuts(quantiles)
        latest = (
            select(scores.c.score, scores.c.probe_digest)
            .where(
                scores.c.probe == name,
                scores.c.created_at > func.now() - rule.window,
                scores.c.shadow.is_not(True),
            )
            .order_by(desc(scores.c.created_at))
            .limit(_MAX_SCORES)
            .subquery()
        )
        bucket = func.width_bucket(latest.c.score, literal(edges, ARRAY(Double)))
        counted = select(bucket.label("bucket"), func.count()).where(latest.c.probe_digest == digest)
        found = connection.execute(counted.group_by(column("bucket")))
        counts = dict.fromkeys(range(len(edges) + 1), 0) | {int(b): int(n) for b, n in found}
        if sum(counts.values()) >= rule.at_least:
            psi_by_probe[name] = psi(quantiles, [counts[i] for i in range(len(edges) + 1)])
    return psi_by_probe


_BY_PROBE: dict[Check, Callable[[Connection, MonitorRule], dict[Subject, float]]] = {
    "score_drift": lambda connection, rule: _of_probes(measure_drift(connection, rule)),
    "tail_drift": _tails,
    "probe_stale": lambda connection, rule: _of_probes(measure_ages(connection, rule)),
}
