"""What there is to read beside alerts: precision, one message, probes, deliveries."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from sqlalchemy import select
from starlette.exceptions import HTTPException

from monitor.web.api.dependencies import BEARER, Tables, errors
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
)
from storage.queries.alerts import verdict_counts
from storage.queries.details import message_detail
from storage.queries.messages import destination_counts, destination_states, oldest_pending_seconds, outbox_counts
from storage.schema import probes
from storage.writer import Coordinates

router = APIRouter(dependencies=[BEARER])

# Of a card, this may go out: not its `references`, which are texts, nor what a later version may add.
_CARD = (
    "format",
    "created",
    "description",
    "units",
    "identity",
    "aggregation",
    "directions",
    "safetensors_sha256",
    "calibration",
    "evaluation",
    "tolerance",
    "mitigation",
)

Partition = Annotated[int, Path(ge=0, le=2**31 - 1)]
Offset = Annotated[int, Path(ge=0, le=2**63 - 1)]


@router.get("/precision", tags=["alerts"], summary="How many judged alerts were right", responses=errors())
def precision(tables: Tables) -> list[Precision]:
    """By rule and probe. Authorised tests count as right: the probe saw what was there."""
    with tables.reading() as connection:
        counts = verdict_counts(connection)
    return [_precision(rule, probe, found) for (rule, probe), found in counts.items()]


@router.get(
    "/messages/{source:path}/{partition}/{offset}",
    tags=["messages"],
    summary="What became of one message",
    responses=errors(404),
)
def show_message(tables: Tables, source: str, partition: Partition, offset: Offset) -> Message:
    """By its coordinates: topic, partition, offset; of JSON lines the source's name, 0, byte offset. Without text."""
    at = Coordinates(source, partition, offset)
    with tables.reading() as connection:
        found = message_detail(connection, at)
    if found is None:
        raise HTTPException(404, "no message is known at these coordinates")
    return Message.model_validate(
        {name: found.message[name] for name in Message.model_fields if name in found.message}
        | {
            "conflicts": len(found.others),
            "scores": [ProbeScore.model_validate(row | {"version": row["probe_version"]}) for row in found.scores],
            "alerts": [HoldingAlert.model_validate(row) for row in found.alerts],
        }
    )


@router.get("/probes", tags=["probes"], summary="The probes that have scored here", responses=errors())
def list_probes(tables: Tables) -> list[ProbeCard]:
    """Every version, with its card but for the texts that it is replayed with."""
    with tables.reading() as connection:
        rows = connection.execute(select(probes).order_by(probes.c.name, probes.c.version)).all()
    return [
        ProbeCard(
            name=row.name,
            version=row.version,
            registered_at=row.registered_at,
            card={name: row.card[name] for name in _CARD if name in row.card},
        )
        for row in rows
    ]


@router.get("/deliveries", tags=["deliveries"], summary="Whether alerts get out", responses=errors())
def deliveries(tables: Tables) -> Deliveries:
    """Events that wait, were delivered, or were given up, and what is known of each destination."""
    with tables.reading() as connection:
        total, oldest = outbox_counts(connection), oldest_pending_seconds(connection)
        states = {row["name"]: row for row in destination_states(connection)}
        counts = destination_counts(connection)
    found = [_destination(name, states.get(name), counts.get(name)) for name in sorted(states.keys() | counts.keys())]
    return Deliveries(events=Counts(**total), oldest_pending_seconds=oldest, destinations=found)


def _precision(rule: str, probe: str | None, found: dict[str | None, int]) -> Precision:
    # Slow to import, and of no use to the other routes.
    from scipy.stats import binomtest

    true, test, false = (found.get(name, 0) for name in ("true", "authorised_test", "false"))
    share, judged = None, true + test + false
    if judged:
        interval = binomtest(true + test, judged).proportion_ci(confidence_level=0.95, method="exact")
        share = Share(value=(true + test) / judged, low=float(interval.low), high=float(interval.high), n=judged)
    counts = {"true": true, "authorised_test": test, "false": false, "not_judged": found.get(None, 0)}
    return Precision(rule=rule, probe=probe, precision=share, **counts)


def _destination(name: str, state: Any, counts: Any) -> Destination:
    # One that was never tried has no state; one whose events are gone has no counts.
    known = state or {"failures": 0, "held_until": None, "disabled_at": None, "last_error": None}
    events = counts or {"pending": 0, "delivered": 0, "dead": 0}
    return Destination(
        name=name,
        events=Counts(**events),
        **{k: known[k] for k in Destination.model_fields if k in known and k != "name"},
    )
