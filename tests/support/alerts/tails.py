"""Rolled-up traffic with as much above the calibration's quantiles as one likes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy import Engine, func, insert, text, update

from storage.schema import rollup_state, score_rollups
from storage.writer import BatchRows, register_probe
from tests.support.rows import message, score, write

HOUR = timedelta(hours=1)
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
SHARES = {"over95": 0.05, "over99": 0.01, "over999": 0.001}
_numbers = count(1)


def card(n: int = 2000, made: str | None = None) -> dict[str, Any]:
    """Calibration scores are even between 0 and 1."""
    calibration: dict[str, Any] = {
        "n": n,
        "quantiles": [[i / 40, i / 40] for i in range(41)],
        "tail": [[q, q] for q in (0.95, 0.99, 0.999) if n * (1 - q) > 0.999],
        "made": made or NOW.date().isoformat(),
    }
    return {"calibration": calibration}


def register(engine: Engine, probe: str = "drift", digest: str = "d1", shown: dict[str, Any] | None = None) -> None:
    with engine.begin() as connection:
        register_probe(connection, digest, probe, 1, "hash", card() if shown is None else shown)


def live_score(engine: Engine, hour: datetime, probe: str = "drift", digest: str = "d1", shadow: bool = False) -> None:
    """One stored score within an hour, as what makes a digest one in use."""
    n = next(_numbers)
    found = score(n, 0.1, probe, probe_digest=digest, shadow=shadow)
    write(engine, BatchRows([message(n, f"s{n}", tenant="shop")], [found]))
    with engine.begin() as connection:
        connection.execute(
            text('UPDATE scores SET created_at = :at WHERE "offset" = :n'), {"at": hour + HOUR / 2, "n": n}
        )


def traffic(
    engine: Engine,
    hours: int,
    n: int = 1000,
    factor: float = 1.0,
    *,
    until: datetime = NOW,
    tenant: str = "shop",
    probe: str = "drift",
    digest: str = "d1",
    shadow: bool = False,
) -> None:
    """Rolled up: so many hours before `until`, each with `factor` times what the calibration promises."""
    rows: list[Mapping[str, Any]] = [
        {
            "minutes": 60,
            "bucket": until - (1 + ago) * HOUR,
            "probe": probe,
            "probe_version": 1,
            "probe_digest": digest,
            "tenant": tenant,
            "model": "",
            "n": n,
            "flagged": 0,
            "total": 0,
            "peak": 1,
            "threshold": 1,
            **{name: round(min(factor * share, 1) * n) for name, share in SHARES.items()},
        }
        for ago in range(hours)
    ]
    with engine.begin() as connection:
        connection.execute(insert(score_rollups), rows)
        connection.execute(update(rollup_state).values(until=NOW + HOUR / 3, at=func.clock_timestamp()))
    live_score(engine, until - HOUR, probe, digest, shadow)
