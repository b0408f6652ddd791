"""Two tenants with rows in every table of a tenant's data; whatever is the other one's has a word of its own."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine, text

from alerts.lifecycle import actions
from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.model import Flagged
from monitor.web.auth import tokens
from storage.coordinates import Coordinates
from storage.partitions import ensure_ahead, utc_today
from storage.rollup import roll_up
from storage.writer import AnswerRow, BatchRows, WindowRow, register_probe, write_batch
from tests.support.alerts.alert_scenes import ANNA, HOUR
from tests.support.rows import digest_of, message, score
from tests.support.web import api

OWN, OTHER = "acme", "umbrella"
# In every text of the other tenant's that is not its name.
CANARY = "kanarienvogel"


@dataclass(frozen=True)
class Tenant:
    """What one tenant has: a message, an alert and a silence."""

    name: str
    at: Coordinates
    alert: uuid.UUID
    silence: uuid.UUID


def fill(engine: Engine) -> tuple[Tenant, Tenant]:
    """Rows of OWN and of OTHER."""
    ensure_ahead(engine)
    with engine.begin() as connection:
        register_probe(connection, digest_of("drift"), "drift", 1, "aa", {"name": "drift"})
    own, other = _fill(engine, OWN, "", 1), _fill(engine, OTHER, CANARY, 2)
    with engine.begin() as connection:
        for name, word in ((OWN, ""), (OTHER, CANARY)):
            values = {"name": name, "model": f"model{word}"}
            connection.execute(
                text(
                    "INSERT INTO score_rollups (minutes, bucket, probe, probe_version, probe_digest, tenant, model, n, "
                    "flagged, total, peak, threshold) VALUES (60, now(), 'drift', 1, '', :name, :model, 1, 1, 1, 1, 1)"
                ),
                values,
            )
    roll_up(engine)
    return own, other


def _fill(engine: Engine, name: str, word: str, offset: int) -> Tenant:
    place = Coordinates("topic", 0, offset)
    digest = digest_of("drift")
    row = replace(
        message(offset, day=utc_today(), tenant=name),
        message_id=f"id{word}",
        user_id=f"user{word}",
        model=f"model{word}",
        conversation_id=f"talk{word}",
        text={"messages": [{"role": "user", "content": f"said {word}"}]},
        attributes={"app": f"app{word}"},
        trace_id=f"trace{word}",
    )
    batch = BatchRows(
        [row],
        [replace(score(offset, 0.9 + offset / 1000), heads=((1, 2, 0.5),), reading=f"reading{word}")],
        [AnswerRow(place, "plain", 3, text=f"answer {word}")],
        [WindowRow(place, "drift", 0, 0, 9, 0.5 + offset / 1000, digest)],
    )
    with engine.begin() as connection:
        write_batch(connection, batch)
        (opened,) = record_flagged(
            connection, [Flagged("drift", 0.9, 0.5, name, f"model{word}", place, f"id{word}")], [f"pager{word}"]
        )
        actions.acknowledge(connection, opened.alert_id, replace(ANNA, who=f"anna{word}"))
        silenced = actions.silence(connection, {"tenant": name, "rule": f"rule{word}"}, HOUR, ANNA, f"why {word}")
    return Tenant(name, place, opened.alert_id, silenced.id)


def token(engine: Engine, scope: Any, tenant: str | None = OWN, name: str = "") -> str:
    with engine.begin() as connection:
        return tokens.create(connection, name or f"{scope}-{tenant}", scope, api.DAY, ANNA, tenant)


def rows_of_other(engine: Engine) -> list[str]:
    """Every row in which the other tenant is named, of every table; the audit of sign-ins and tokens left out."""
    found = []
    with engine.connect() as connection:
        names = (
            connection.execute(
                text(
                    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
                    "AND relnamespace = 'public'::regnamespace ORDER BY relname"
                )
            )
            .scalars()
            .all()
        )
        for name in names:
            query = text(f'SELECT to_jsonb(t)::text FROM "{name}" AS t ORDER BY 1')  # noqa: S608 - our own names
            found += [f"{name} {row}" for row in connection.execute(query).scalars() if OTHER in row or CANARY in row]
    return found
