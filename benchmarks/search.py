"""How long each kind of search takes on millions of messages in a real PostgreSQL.

    python -m benchmarks.search --rows 10 --days 30 --out docs/bench-search.json

Rows are made by the server (generate_series): `--rows` million messages over `--days` days with a score each, in
partitions by day; 200,000 users, 50 tenants of very different size, conversations of ten messages; 1 % flagged. Each
kind of search is asked `--repeats` times with other values on a connection of its own, after one that is not counted;
figures are milliseconds, the median and the slowest.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from benchmarks.scratch import scratch_database
from storage.partitions import ensure_days, utc_today
from storage.queries.search import Filters, search

MILLION = 1_000_000
_MESSAGES = """
    INSERT INTO messages (source, partition, "offset", sub, payload_sha256, day, message_id, tenant, user_id, model,
        conversation_id, ingested_at, status, tokens)
    SELECT 'traffic', n % 12, n, 0, md5(n::text), :day, 'm-' || n, 'tenant-' || floor(50 * power(random(), 3)),
        'user-' || (n * 7919 % 200000), 'model', 'talk-' || n / 10,
        CAST(:day AS date) + (n - CAST(:first AS bigint)) * interval '1 day' / CAST(:number AS bigint),
        CASE WHEN n % 10000 = 0 THEN 'failed' WHEN n % 5000 = 1 THEN 'truncated' ELSE 'scored' END, 100
    FROM generate_series(CAST(:first AS bigint), CAST(:first AS bigint) + CAST(:number AS bigint) - 1) AS n
"""
_SCORES = """
    INSERT INTO scores (source, partition, "offset", sub, probe, probe_digest, probe_version, day, score, threshold,
        flagged, created_at)
    SELECT source, partition, "offset", sub, 'harm', 'digest', 1, day, s, 0.99, s > 0.99, ingested_at
    FROM (SELECT *, abs(hashtext(payload_sha256)) / 2147483648.0 AS s FROM messages
        WHERE day = :day AND status <> 'failed') AS m
"""


def last_days(days: int) -> list[date]:
    """Today and the days before it, so many in all."""
    return [utc_today() - timedelta(days=days - 1 - n) for n in range(days)]


def fill(engine: Engine, rows: int, days: int) -> None:
    """Messages with their scores over the last days, whose partitions are there."""
    dates = last_days(days)
    number = rows // days
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO probes (digest, name, version, safetensors_sha256, card) "
                "VALUES ('digest', 'harm', 1, 'h', '{}')"
            )
        )
    for count, day in enumerate(dates):
        with engine.begin() as connection:
            values = {"day": day, "first": count * number, "number": number}
            connection.execute(text(_MESSAGES), values)
            connection.execute(text(_SCORES), {"day": day})
        print(f"{day}: {(count + 1) * number:,} rows", flush=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def kinds(rows: int, days: int) -> dict[str, Callable[[random.Random], Filters]]:
    """A search of each kind with values drawn at random."""
    start = datetime.combine(utc_today() - timedelta(days=days - 1), datetime.min.time()).astimezone()

    def hour(draw: random.Random) -> dict[str, Any]:
        since = start + timedelta(hours=draw.randrange(24 * days))
        return {"since": since, "until": since + timedelta(hours=1)}

    return {
        "message id": lambda draw: Filters(message_id=f"m-{draw.randrange(rows)}"),
        "message id, unknown": lambda _: Filters(message_id="nobody"),
        "user": lambda draw: Filters(user=f"user-{draw.randrange(200_000)}"),
        "tenant, large": lambda _: Filters(tenant="tenant-0"),
        "tenant, small": lambda _: Filters(tenant="tenant-49"),
        "conversation": lambda draw: Filters(conversation=f"talk-{draw.randrange(rows // 10)}"),
        "latest of all": lambda _: Filters(),
        "an hour": lambda draw: Filters(**hour(draw)),
        "tenant in an hour": lambda draw: Filters(tenant="tenant-7", **hour(draw)),
        "probe": lambda _: Filters(probe="harm"),
        "flagged": lambda _: Filters(flagged=True),
        "flagged in an hour": lambda draw: Filters(flagged=True, **hour(draw)),
        "flagged of a user": lambda draw: Filters(user=f"user-{draw.randrange(200_000)}", flagged=True),
        "score range, few": lambda draw: Filters(probe="harm", score_from=(low := draw.random()), score_to=low + 1e-5),
        "score range, many": lambda _: Filters(probe="harm", score_from=0.2, score_to=0.8),
        "status failed": lambda _: Filters(status="failed"),
        "status truncated": lambda _: Filters(status="truncated"),
        "status failed of a tenant": lambda _: Filters(status="failed", tenant="tenant-3"),
    }


def measure(engine: Engine, rows: int, days: int, repeats: int) -> dict[str, dict[str, float]]:
    found = {}
    for name, make in kinds(rows, days).items():
        draw, taken, hits = random.Random(7), [], 0
        for number in range(repeats + 1):
            filters = make(draw)
            began = time.perf_counter()
            with engine.connect() as connection:
                page, _ = search(connection, filters, 50)
            if number:
                taken.append(1000 * (time.perf_counter() - began))
            hits = max(hits, len(page))
        found[name] = {
            "median_ms": round(statistics.median(taken), 1),
            "slowest_ms": round(max(taken), 1),
            "rows": hits,
        }
        print(f"{name:28} {found[name]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1.0, help="millions of messages")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = int(given.rows * MILLION)
    with scratch_database() as (engine, _):
        assert ensure_days(engine, last_days(given.days))
        began = time.perf_counter()
        fill(engine, rows, given.days)
        filled = time.perf_counter() - began
        found = measure(engine, rows, given.days, given.repeats)
        with engine.connect() as connection:
            size = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
            server = connection.execute(text("SHOW server_version")).scalar_one()
    report = {
        "rows": rows,
        "days": given.days,
        "database_bytes": size,
        "filled_seconds": round(filled),
        "server": f"PostgreSQL {server}",
        "machine": f"{platform.machine()}, 2 cores",
        "searches": found,
    }
    if given.out is not None:
        given.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
