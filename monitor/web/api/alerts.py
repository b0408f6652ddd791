"""Alerts: list, look at, acknowledge, resolve, reopen, judge, silence."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from alerts.errors import UnknownAlertError
from alerts.lifecycle import actions
from alerts.lifecycle.enqueue import top_messages
from alerts.rules.durations import parse_duration
from monitor.web.api.dependencies import BEARER, Tables, Who, alert_fields, as_alert, errors, writing
from monitor.web.api.pagination import CursorError, alert_page
from monitor.web.api.requests import AlertSilence, Filters, Judgement
from monitor.web.api.schemas import Alert, AlertDetail, AlertPage, SilenceMade
from storage.queries.alerts import alert_by_id, alert_deliveries, alert_history

router = APIRouter(prefix="/alerts", tags=["alerts"], dependencies=[BEARER])

_TOP = 10


@router.get("", summary="List alerts, newest first", responses=errors())
def list_alerts(tables: Tables, asked: Annotated[Filters, Query()]) -> AlertPage:
    """A page of alerts by when they were opened. Follow `next` for older ones, with the same filters."""
    named = asked.model_dump(include={"state", "rule", "probe", "tenant", "model", "severity"})
    with tables.reading() as connection:
        try:
            rows, following = alert_page(connection, named, asked.limit, asked.cursor)
        except CursorError:
            wrong = {
                "type": "value_error",
                "loc": ("query", "cursor"),
                "msg": "take `next` of the page before as it is",
            }
            raise RequestValidationError([wrong]) from None
    return AlertPage(alerts=[as_alert(row) for row in rows], next=following)


@router.get("/{id}", summary="One alert with its top messages, history and deliveries", responses=errors(404))
def show_alert(tables: Tables, id: uuid.UUID) -> AlertDetail:
    """Messages are named by coordinates and ids."""
    with tables.reading() as connection:
        row = alert_by_id(connection, id)
        if row is None:
            raise UnknownAlertError("alert: not known")
        more = {
            "messages": top_messages(connection, id, _TOP),
            "history": alert_history(connection, id),
            "deliveries": alert_deliveries(connection, id),
        }
    return AlertDetail.model_validate(alert_fields(row) | more)


@router.post("/{id}/acknowledge", summary="Somebody has it in hand", responses=writing(404, 409))
def acknowledge(tables: Tables, who: Who, id: uuid.UUID) -> Alert:
    """Nothing more is sent, until it gets graver. 409 where somebody else was first, or it is resolved."""
    with tables.writing() as connection:
        return as_alert(actions.acknowledge(connection, id, who)._mapping)


@router.post("/{id}/resolve", summary="It is over", responses=writing(404, 409))
def resolve(tables: Tables, who: Who, id: uuid.UUID) -> Alert:
    """Who was told of the alert is told. 409 where it is resolved."""
    with tables.writing() as connection:
        return as_alert(actions.resolve(connection, id, who)._mapping)


@router.post("/{id}/reopen", summary="It was not over", responses=writing(404, 409))
def reopen(tables: Tables, who: Who, id: uuid.UUID) -> Alert:
    """A verdict that it had is dropped. 409 where it is not resolved, or another alert of its key is live."""
    with tables.writing() as connection:
        return as_alert(actions.reopen(connection, id, who)._mapping)


@router.post("/{id}/verdict", summary="Judge an alert", responses=writing(404))
def judge(tables: Tables, who: Who, id: uuid.UUID, asked: Judgement) -> Alert:
    """Feeds the measured precision and `awry calibrate`. It may be judged again: the last verdict counts."""
    with tables.writing() as connection:
        return as_alert(actions.judge(connection, id, asked.verdict, who, asked.note)._mapping)


@router.post("/{id}/silence", summary="Silence one alert for a while", status_code=201, responses=writing(404, 409))
def silence_alert(tables: Tables, who: Who, id: uuid.UUID, asked: AlertSilence) -> SilenceMade:
    """Up to the severity that it has now: what gets graver is sent. 409 where it is resolved."""
    with tables.writing() as connection:
        made = actions.silence_alert(connection, id, parse_duration(asked.lasting), who, asked.comment)
    return SilenceMade(id=made.id, ends_at=made.ends_at, alerts=list(made.alerts))
