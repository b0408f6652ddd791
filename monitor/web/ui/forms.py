"""The forms on the page of an alert: acknowledge, silence, resolve, reopen, judge."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from alerts.errors import TransitionError
from alerts.lifecycle import actions
from alerts.lifecycle.audit import Actor
from alerts.rules.durations import parse_duration

Action = Callable[[Connection, uuid.UUID, Actor, Mapping[str, str]], Any]
MAX_NOTE_CHARS = 1000


def _silence(connection: Connection, alert_id: uuid.UUID, actor: Actor, form: Mapping[str, str]) -> None:
    try:
        lasting = parse_duration(form.get("for", ""))
    except ValueError as error:
        raise TransitionError(f"for: {error}") from None
    actions.silence_alert(connection, alert_id, lasting, actor, form.get("comment", "")[:MAX_NOTE_CHARS])


def _judge(connection: Connection, alert_id: uuid.UUID, actor: Actor, form: Mapping[str, str]) -> None:
    verdict = next((v for v in actions.VERDICTS if v == form.get("verdict")), None)
    if verdict is None:
        raise TransitionError(f"verdict: choose one of {', '.join(actions.VERDICTS)}")
    actions.judge(connection, alert_id, verdict, actor, form.get("note", "")[:MAX_NOTE_CHARS] or None)


ACTIONS: dict[str, Action] = {
    "acknowledge": lambda c, alert_id, actor, _: actions.acknowledge(c, alert_id, actor),
    "resolve": lambda c, alert_id, actor, _: actions.resolve(c, alert_id, actor),
    "reopen": lambda c, alert_id, actor, _: actions.reopen(c, alert_id, actor),
    "silence": _silence,
    "verdict": _judge,
}
