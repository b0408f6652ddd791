"""Silences: list the active ones, create by patterns, end early."""

from __future__ import annotations

import uuid

from fastapi import APIRouter

from alerts.lifecycle import actions
from alerts.rules.durations import parse_duration
from monitor.web.api.dependencies import BEARER, ActorDep, DatabaseDep, error_responses, write_error_responses
from monitor.web.api.requests import NewSilence
from monitor.web.api.schemas import Silence, SilenceEnded, SilenceMade
from storage.queries.alerts import active_silences

router = APIRouter(prefix="/silences", tags=["silences"], dependencies=[BEARER])


@router.get("", summary="List active silences", responses=error_responses())
def list_silences(database: DatabaseDep) -> list[Silence]:
    """Ordered by end, the earliest first."""
    with database.read_only() as connection:
        rows = active_silences(connection)
    return [Silence.model_validate(row | {"up_to": row["severity"]}) for row in rows]


@router.post("", summary="Silence matching alerts", status_code=201, responses=write_error_responses(409))
def make_silence(database: DatabaseDep, actor: ActorDep, body: NewSilence) -> SilenceMade:
    """Applies to live and to future alerts. 409 while a worker is opening alerts: try again. One made with a token of a
    tenant matches that tenant's alerts alone, whether it names the tenant or not."""
    lasting = parse_duration(body.lasting)
    own = {"tenant": database.tenant} if database.tenant is not None and body.tenant is None else {}
    with database.read_write() as connection:
        silence = actions.silence(connection, body.matchers() | own, lasting, actor, body.comment, body.up_to)
    return SilenceMade(id=silence.id, ends_at=silence.ends_at, alerts=list(silence.alerts))


@router.delete("/{id}", summary="End a silence early", responses=write_error_responses(404, 409))
def end_silence(database: DatabaseDep, actor: ActorDep, id: uuid.UUID) -> SilenceEnded:
    """Alerts that occurred meanwhile are notified at the next rule evaluation. 404 if it has already ended."""
    with database.read_write() as connection:
        unsilenced = actions.end_silence(connection, id, actor)
    return SilenceEnded(id=id, alerts=unsilenced)
