"""Alerts: list, show, acknowledge, resolve, reopen, judge, silence."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from alerts.errors import UnknownAlertError
from alerts.lifecycle import actions
from alerts.lifecycle.enqueue import top_messages
from alerts.rules.durations import parse_duration
from monitor.web.api.dependencies import (
    BEARER,
    ActorDep,
    DatabaseDep,
    alert_fields,
    as_alert,
    error_responses,
    write_error_responses,
)
from monitor.web.api.pagination import CursorError, alert_page
from monitor.web.api.requests import AlertFilters, AlertSilence, Judgement
from monitor.web.api.schemas import Alert, AlertDetail, AlertPage, SilenceMade
from storage.queries.alerts import alert_by_id, alert_deliveries, alert_history

router = APIRouter(prefix="/alerts", tags=["alerts"], dependencies=[BEARER])

_TOP_MESSAGES = 10


@router.get("", summary="List alerts, newest first", responses=error_responses())
def list_alerts(database: DatabaseDep, query: Annotated[AlertFilters, Query()]) -> AlertPage:
    """A page of alerts by opening time. Pass `next` as `cursor` for older ones, with the same filters."""
    filters = query.model_dump(include={"state", "rule", "probe", "tenant", "model", "severity"})
    with database.read_only() as connection:
        try:
            rows, cursor = alert_page(connection, filters, query.limit, query.cursor)
        except CursorError:
            error = {
                "type": "value_error",
                "loc": ("query", "cursor"),
                "msg": "use `next` of the previous page unchanged, with the same filters",
            }
            raise RequestValidationError([error]) from None
    return AlertPage(alerts=[as_alert(row) for row in rows], next=cursor)


@router.get(
    "/{id}", summary="Show an alert with its top messages, history and deliveries", responses=error_responses(404)
)
def show_alert(database: DatabaseDep, id: uuid.UUID) -> AlertDetail:
    """Messages are given by coordinates and ids, without text."""
    with database.read_only() as connection:
        row = alert_by_id(connection, id)
        if row is None:
            raise UnknownAlertError("alert: not known")
        details = {
            "messages": top_messages(connection, id, _TOP_MESSAGES),
            "history": alert_history(connection, id),
            "deliveries": alert_deliveries(connection, id),
        }
    return AlertDetail.model_validate(alert_fields(row) | details)


@router.post("/{id}/acknowledge", summary="Acknowledge an alert", responses=write_error_responses(404, 409))
def acknowledge(database: DatabaseDep, actor: ActorDep, id: uuid.UUID) -> Alert:
    """No further notifications until the severity increases. 409 if it is already acknowledged, or resolved."""
    with database.read_write() as connection:
        return as_alert(actions.acknowledge(connection, id, actor)._mapping)


@router.post("/{id}/resolve", summary="Resolve an alert", responses=write_error_responses(404, 409))
def resolve(database: DatabaseDep, actor: ActorDep, id: uuid.UUID) -> Alert:
    """Notifies every destination that was notified of the alert. 409 if it is already resolved."""
    with database.read_write() as connection:
        return as_alert(actions.resolve(connection, id, actor)._mapping)


@router.post("/{id}/reopen", summary="Reopen a resolved alert", responses=write_error_responses(404, 409))
def reopen(database: DatabaseDep, actor: ActorDep, id: uuid.UUID) -> Alert:
    """Drops its verdict. 409 if it is not resolved, or another alert with its key is live."""
    with database.read_write() as connection:
        return as_alert(actions.reopen(connection, id, actor)._mapping)


@router.post("/{id}/verdict", summary="Judge an alert", responses=write_error_responses(404))
def judge(database: DatabaseDep, actor: ActorDep, id: uuid.UUID, body: Judgement) -> Alert:
    """Used for the measured precision and by `awry calibrate`. It may be repeated: the latest verdict counts."""
    with database.read_write() as connection:
        return as_alert(actions.judge(connection, id, body.verdict, actor, body.note)._mapping)


@router.post(
    "/{id}/silence", summary="Silence an alert for a while", status_code=201, responses=write_error_responses(404, 409)
)
def silence_alert(database: DatabaseDep, actor: ActorDep, id: uuid.UUID, body: AlertSilence) -> SilenceMade:
    """Up to its present severity: an increase is notified. 409 if it is resolved."""
    with database.read_write() as connection:
        silence = actions.silence_alert(connection, id, parse_duration(body.lasting), actor, body.comment)
    return SilenceMade(id=silence.id, ends_at=silence.ends_at, alerts=list(silence.alerts))
