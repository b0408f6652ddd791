"""Silences: those that hold, new ones by patterns, and an early end."""

from __future__ import annotations

import uuid

from fastapi import APIRouter

from alerts.lifecycle import actions
from alerts.rules.durations import parse_duration
from monitor.web.api.dependencies import BEARER, Tables, Who, errors, writing
from monitor.web.api.requests import NewSilence
from monitor.web.api.schemas import Silence, SilenceEnded, SilenceMade
from storage.queries.alerts import active_silences

router = APIRouter(prefix="/silences", tags=["silences"], dependencies=[BEARER])


@router.get("", summary="The silences that hold", responses=errors())
def list_silences(tables: Tables) -> list[Silence]:
    """The first to end comes first."""
    with tables.reading() as connection:
        rows = active_silences(connection)
    return [Silence.model_validate(row | {"up_to": row["severity"]}) for row in rows]


@router.post("", summary="Silence all alerts that match", status_code=201, responses=writing(409))
def make_silence(tables: Tables, who: Who, asked: NewSilence) -> SilenceMade:
    """Those that are live and those to come. 409 while a worker opens alerts and does not finish: try again."""
    lasting = parse_duration(asked.lasting)
    with tables.writing() as connection:
        made = actions.silence(connection, asked.matchers(), lasting, who, asked.comment, asked.up_to)
    return SilenceMade(id=made.id, ends_at=made.ends_at, alerts=list(made.alerts))


@router.delete("/{id}", summary="End a silence early", responses=writing(404, 409))
def end_silence(tables: Tables, who: Who, id: uuid.UUID) -> SilenceEnded:
    """What went on behind it is told at awry's next look. 404 where it is over."""
    with tables.writing() as connection:
        back = actions.end_silence(connection, id, who)
    return SilenceEnded(id=id, alerts=back)
