"""Read-only routes beside alerts and silences: precision, one message, probes, deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path
from pydantic import AfterValidator
from sqlalchemy import select
from starlette.exceptions import HTTPException

from monitor.web.api.dependencies import BEARER, DatabaseDep, error_responses
from monitor.web.api.evidence import erased_words, message_at, parse_offset
from monitor.web.api.schemas import (
    Counts,
    Deliveries,
    Destination,
    HoldingAlert,
    Message,
    Precision,
    ProbeCard,
    ProbeScore,
    Share,
    WindowScore,
)
from storage.coordinates import Coordinates
from storage.queries.alerts import verdict_counts
from storage.queries.outbox import destination_counts, destination_states, oldest_pending_seconds, outbox_counts
from storage.schema import probes

Scored = TypeVar("Scored", ProbeScore, WindowScore)

router = APIRouter(dependencies=[BEARER])

# The fields of a card that may be shown: not `references`, which are texts, nor any that a later version may add.
_CARD_FIELDS = (
    "format",
    "created",
    "description",
    "units",
    "identity",
    "aggregation",
    "engine",
    "combine",
    "method",
    "directions",
    "safetensors_sha256",
    "calibration",
    "evaluation",
    "attacks",
    "tolerance",
    "mitigation",
)


def _checked_offset(text: str) -> str:
    parse_offset(text)
    return text


Partition = Annotated[int, Path(ge=0, le=2**31 - 1)]
Offset = Annotated[
    str,
    Path(
        description="the offset; `OFFSET.SUB`, such as `1204.7`, for a further message of a record that holds several",
        json_schema_extra={"pattern": r"^[0-9]{1,19}(\.[0-9]{1,10})?$"},
    ),
    AfterValidator(_checked_offset),
]


@router.get("/precision", tags=["alerts"], summary="Measured precision of judged alerts", responses=error_responses())
def precision(database: DatabaseDep) -> list[Precision]:
    """By rule and probe. Authorised tests count as true positives: the probe detected what was there."""
    with database.read_only() as connection:
        counts = verdict_counts(connection)
    return [_precision(rule, probe, by_verdict) for (rule, probe), by_verdict in counts.items()]


@router.get(
    "/messages/{source:path}/{partition}/{offset}",
    tags=["messages"],
    summary="Show the status and scores of a message",
    responses=error_responses(404, 410),
)
def show_message(database: DatabaseDep, source: str, partition: Partition, offset: Offset) -> Message:
    """By its coordinates: topic, partition, offset; for JSON lines the source's name, 0, byte offset. Without text."""
    at = Coordinates(source, partition, *parse_offset(offset))
    with database.read_only() as connection:
        detail = message_at(connection, at)
        erased = erased_words(connection, at, database.tenant) if detail is None else None
    if erased is not None:
        raise HTTPException(410, erased)
    if detail is None:
        raise HTTPException(404, "no message is known at these coordinates")
    row = detail.message
    sent_at = row["sent_at"]
    return Message.model_validate(
        {name: row[name] for name in Message.model_fields if name in row}
        | {
            "sent_at": sent_at if isinstance(sent_at, datetime) else None,
            "sent_at_stored": sent_at if isinstance(sent_at, str) else None,
            "notes": row["notes"] or [],
            "unread": row["unread"] or {},
            "special_tokens": row["special_tokens"] or 0,
            "window_scores": [_of_card(WindowScore, window) for window in detail.windows],
            "conflicts": len(detail.others),
            "scores": [_of_card(ProbeScore, score, version=score["probe_version"]) for score in detail.scores],
            "alerts": [HoldingAlert.model_validate(row) for row in detail.alerts],
        }
    )


@router.get(
    "/probes", tags=["probes"], summary="List the probes that have scored messages", responses=error_responses()
)
def list_probes(database: DatabaseDep) -> list[ProbeCard]:
    """Every card of every name and version, except its reference texts."""
    in_order = (probes.c.name, probes.c.version, probes.c.registered_at, probes.c.digest)
    with database.read_only() as connection:
        rows = connection.execute(select(probes).order_by(*in_order)).all()
    return [
        ProbeCard(
            name=row.name,
            version=row.version,
            digest=row.digest,
            registered_at=row.registered_at,
            card={name: row.card[name] for name in _CARD_FIELDS if name in row.card},
        )
        for row in rows
    ]


@router.get(
    "/deliveries",
    tags=["deliveries"],
    summary="Show the state of the outbox and of each destination",
    responses=error_responses(),
)
def deliveries(database: DatabaseDep) -> Deliveries:
    """Events that are pending, delivered or dead (given up), and the state of each destination."""
    with database.read_only() as connection:
        total, oldest = outbox_counts(connection), oldest_pending_seconds(connection)
        states = {row["name"]: row for row in destination_states(connection)}
        counts = destination_counts(connection)
    names = sorted(states.keys() | counts.keys())
    destinations = [_destination(name, states.get(name), counts.get(name)) for name in names]
    return Deliveries(events=Counts(**total), oldest_pending_seconds=oldest, destinations=destinations)


def _of_card(model: type[Scored], row: Mapping[str, Any], **more: Any) -> Scored:
    return model.model_validate({**row, "digest": row["probe_digest"], **more})


def _precision(rule: str, probe: str | None, by_verdict: dict[str | None, int]) -> Precision:
    # Slow to import, and only needed here.
    from scipy.stats import binomtest

    true, test, false = (by_verdict.get(name, 0) for name in ("true", "authorised_test", "false"))
    share, judged = None, true + test + false
    if judged:
        interval = binomtest(true + test, judged).proportion_ci(confidence_level=0.95, method="exact")
        share = Share(value=(true + test) / judged, low=float(interval.low), high=float(interval.high), n=judged)
    counts = {"true": true, "authorised_test": test, "false": false, "not_judged": by_verdict.get(None, 0)}
    return Precision(rule=rule, probe=probe, precision=share, **counts)


def _destination(name: str, state: Any, counts: Any) -> Destination:
    # A destination that was never tried has no state; one whose events were purged has no counts.
    fields = state or {"failures": 0, "held_until": None, "disabled_at": None, "last_error": None}
    events = counts or {"pending": 0, "delivered": 0, "dead": 0}
    return Destination(
        name=name,
        events=Counts(**events),
        **{k: fields[k] for k in Destination.model_fields if k in fields and k != "name"},
    )
