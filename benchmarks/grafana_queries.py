"""How long each panel's SQL takes on ten million scores: EXPLAIN ANALYZE on the embedded PostgreSQL.

How to run: `python -m benchmarks.grafana_queries [--rows 10000000] [--days 2] [--out docs/bench-grafana.json]`; ten
million rows take about half an hour and 8 GB of disk on two cores. The folder is removed afterwards, or kept and used
again with --keep FOLDER.

The traffic: `rows` scores in `days` up to now, half of them by the probe `drift`, half by `heads`, of which every
twentieth message has eight attention heads; 200 tenants, the largest with a seventh of the traffic; 3 models; one
message in a hundred flagged; conversations of five. Twelve partitions of a topic, as in docker-compose.yml.

Every query runs as the dashboard sends it for the last 24 hours: as it opens, and with variables set. A figure is
planning plus execution, in milliseconds: `first` of the first run (cold for this query), `ms` the median of the next
three. PostgreSQL's own settings are the wheel's defaults, but for what makes loading faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Connection, Engine, text

from alerts.dashboards import dashboards
from benchmarks.grafana_macros import View, expanded, targets
from benchmarks.scratch import scratch_database
from storage.head_layouts import layout_id, store
from storage.partitions import ensure_days
from storage.rollup import roll_up
from storage.writer import register_probe

AIM_MS = 300
STEP = 500_000
POSTGRES = "grafana-postgresql-datasource"

# A message's facts by its number, and `at`, when it was stored. `heat` is even in 0..1 and repeatable.
_FACTS = """
    SELECT n, CAST(:begin AS timestamptz) + n * make_interval(secs => CAST(:gap AS float8)) AS at,
        'tenant-' || floor(200 * power(abs(hashint8(n)) / 2147483648.0, 3))::int AS tenant,
        'model-' || n % 3 AS model, abs(hashint8(n + 7)) / 2147483648.0 AS heat
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
"""
_MESSAGES = f"""
    INSERT INTO messages (source, partition, "offset", sub, payload_sha256, day, message_id, tenant, model,
        conversation_id, ingested_at, status, tokens, text_sha256)
    SELECT 'awry.traffic', n % 12, n / 12, 0, md5(n::text) || md5(n::text), (at AT TIME ZONE 'UTC')::date, 'm-' || n,
        tenant, model, 'talk-' || n / 5, at, 'scored', 50, md5(n::text) || md5(n::text) FROM ({_FACTS}) AS f
"""  # noqa: S608
_SCORES = f"""
    INSERT INTO scores (source, partition, "offset", sub, probe, probe_digest, probe_version, day, score, threshold,
        flagged, created_at)
    SELECT 'awry.traffic', n % 12, n / 12, 0, probe, probe || '-1', 1, (at AT TIME ZONE 'UTC')::date,
        CASE WHEN heat > 0.99 THEN 0.6 + 100 * (heat - 0.99) ELSE heat - 0.5 END, 0.5, heat > 0.99, at
    FROM ({_FACTS}) AS f CROSS JOIN (VALUES ('drift'), ('heads')) AS p (probe)
"""  # noqa: S608
_HEADS = f"""
    INSERT INTO head_scores (source, partition, "offset", sub, probe, probe_digest, day, layout, scores)
    SELECT 'awry.traffic', n % 12, n / 12, 0, 'heads', 'heads-1', (at AT TIME ZONE 'UTC')::date, :layout,
        array_fill(heat::real, ARRAY[8])
    FROM ({_FACTS}) AS f WHERE n % 20 = 0
"""  # noqa: S608
_HEADS_OF = (tuple(n // 4 * 5 for n in range(8)), tuple(n % 4 for n in range(8)))
_ALERTS = """
    WITH made AS (
        INSERT INTO alerts (id, dedup_key, rule, probe, tenant, model, severity, state, count, top_score, threshold,
            first_message, top_message, opened_at, last_seen_at)
        SELECT gen_random_uuid(), 'key-' || n, 'threshold', 'drift', 'tenant-' || n % 200, 'model-0', 'warning',
            CASE WHEN n % 10 = 0 THEN 'open' ELSE 'resolved' END, 10, 1, 0.5, message, message,
            now() - make_interval(mins => n), now() - make_interval(mins => n)
        FROM generate_series(1, 2000) AS n CROSS JOIN (
            SELECT jsonb_build_object('source', 'awry.traffic', 'partition', 0, 'offset', 1, 'id', 'm-12') AS message
        ) AS top
        RETURNING id, dedup_key
    )
    INSERT INTO alert_messages (alert_id, source, partition, "offset", sub, day, message_id, score)
    SELECT id, source, partition, "offset", sub, day, 'm', score FROM made JOIN LATERAL (
        SELECT * FROM scores WHERE probe = 'drift' AND flagged AND created_at > now() - interval '1 day'
        ORDER BY created_at DESC OFFSET substr(dedup_key, 5)::int LIMIT 10
    ) AS s ON true ON CONFLICT DO NOTHING
"""
_ANSWERS = """
    INSERT INTO answers (source, partition, "offset", sub, kind, day, tokens, text_sha256)
    SELECT source, partition, "offset", sub, kind, day, 20, 'x' FROM (
        SELECT * FROM scores WHERE probe = 'drift' AND flagged ORDER BY created_at DESC LIMIT 20000
    ) AS s CROSS JOIN (VALUES ('plain'), ('mitigated')) AS k (kind)
"""
CARD = {
    "calibration": {
        "threshold": 0.5,
        "target_fpr": 0.01,
        "n": 500,
        "fpr": {"value": 0.01, "low": 0.0, "high": 0.02, "n": 500},
        "quantiles": [[n / 40, n / 40 - 0.5] for n in range(41)],
    }
}


def load(engine: Engine, rows: int, days: float) -> dict[str, float]:
    """Fill the tables; returns the seconds of each step."""
    numbers, until = rows // 2, datetime.now(UTC)
    begin = until - timedelta(days=days)
    assert ensure_days(engine, [(begin + timedelta(days=n)).date() for n in range(int(days) + 2)])
    with engine.begin() as connection:
        for name in ("drift", "heads"):
            register_probe(connection, f"{name}-1", name, 1, "hash", CARD)
        store(connection, [_HEADS_OF])
    facts = {"begin": begin, "gap": days * 86400 / numbers, "layout": layout_id(*_HEADS_OF)}
    took: dict[str, float] = {}
    started = time.monotonic()
    for first in range(0, numbers, STEP):
        span = facts | {"first": first, "last": min(first + STEP, numbers) - 1}
        with engine.begin() as connection:
            for statement in (_MESSAGES, _SCORES, _HEADS):
                connection.execute(text(statement), span)
        print(
            f"  {min(first + STEP, numbers):,} of {numbers:,} messages, {time.monotonic() - started:.0f} s", flush=True
        )
    took["load"] = time.monotonic() - started
    with engine.begin() as connection:
        connection.execute(text("ANALYZE scores"))
        connection.execute(text(_ALERTS))
        connection.execute(text(_ANSWERS))
    started = time.monotonic()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE)"))
    took["vacuum and analyze"] = time.monotonic() - started
    started = time.monotonic()
    rolled = roll_up(engine)
    took["roll up everything"] = time.monotonic() - started
    print(f"  rolled up {rolled:,} scores in {took['roll up everything']:.0f} s", flush=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) score_rollups, score_histograms, head_rollups"))
    return took


def choices(engine: Engine) -> dict[str, dict[str, Any]]:
    """The values of the variables, by the name of the case."""
    with engine.connect() as connection:
        last = connection.execute(
            text(
                "SELECT message_id, conversation_id, source || '/' || partition || '/' || \"offset\" AS place "
                "FROM messages ORDER BY ingested_at DESC LIMIT 1 OFFSET 1000"
            )
        ).one()
        alert = connection.execute(
            text("SELECT alert_id::text FROM alert_messages GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1")
        ).scalar()
    board = {"probe": "drift", "version": "1"}
    return {
        "as it opens": board | {"probe": "$__all"},
        "largest tenant": {"tenant": ["tenant-0"], "model": ["model-1"], "probe": ["drift"], "version": "1"},
        "small tenant": {"tenant": ["tenant-190"], "probe": ["drift"], "version": "1"},
        "a message": board | {"message": last.message_id},
        "a message by place": board | {"message": last.place},
        "an alert": board | {"alert": alert or ""},
        "a conversation": board | {"conversation": last.conversation_id},
    }


def cases(engine: Engine, view_of: Any) -> Iterator[tuple[dict[str, str], str]]:
    """(what it is, SQL) of every query of every dashboard, each text once."""
    seen = set()
    for name, chosen in choices(engine).items():
        for uid, board in dashboards().items():
            values = chosen | ({"probe": "drift"} if uid == "awry-probe" else {})
            queries = [(p["title"], t["refId"], t["rawSql"], p.get("interval")) for p, t in targets(board, POSTGRES)]
            queries += [
                ("variable " + v["name"], "A", v["query"], None)
                for v in board["templating"]["list"]
                if v["type"] == "query" and v["datasource"]["type"] == POSTGRES
            ]
            queries += [("annotations", "A", a["target"]["rawSql"], None) for a in board["annotations"]["list"]]
            for title, ref, query, least in queries:
                sql = expanded(query, board, view_of(values), least)
                if (uid, title, sql) not in seen:
                    seen.add((uid, title, sql))
                    yield {"dashboard": uid, "panel": title, "query": ref, "chosen": name}, sql


def milliseconds(connection: Connection, sql: str) -> float:
    found = connection.exec_driver_sql("EXPLAIN (ANALYZE, FORMAT JSON) " + sql.replace("%", "%%"), ()).scalar_one()[0]
    return float(found["Planning Time"] + found["Execution Time"])


def measure(engine: Engine) -> list[dict[str, Any]]:
    until = datetime.now(UTC)
    found = []
    with engine.connect() as connection:
        for what, sql in cases(engine, lambda values: View(until - timedelta(days=1), until, values)):
            connection.execute(text("SET TRANSACTION READ ONLY"))
            first, *others = (milliseconds(connection, sql) for _ in range(4))
            connection.rollback()
            found.append({**what, "first": round(first, 1), "ms": round(median(others), 1)})
    return sorted(found, key=lambda row: -row["ms"])


def report(
    engine: Engine, rows: int, days: float, took: dict[str, float], found: list[dict[str, Any]]
) -> dict[str, Any]:
    with engine.connect() as connection:
        counts = {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608
            for table in ("messages", "scores", "head_scores", "score_rollups", "score_histograms", "head_rollups")
        }
        settings = {
            name: connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("server_version", "shared_buffers", "work_mem", "max_parallel_workers_per_gather", "jit")
        }
    slow = [row for row in found if row["ms"] > AIM_MS]
    return {
        "aim_ms": AIM_MS,
        "range": "24 hours",
        "queries": len(found),
        "within_aim": len(found) - len(slow),
        "slowest_ms": found[0]["ms"],
        "slowest_first_ms": max(row["first"] for row in found),
        "rows": counts,
        "days": days,
        "seconds": {name: round(value, 1) for name, value in took.items()},
        "postgres": settings,
        "machine": host(),
        "command": f"python -m benchmarks.grafana_queries --rows {rows} --days {days:g}",
        "panels": found,
    }


def host() -> dict[str, Any]:
    """What a figure was measured on, and how busy it was."""
    return {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "load_average_1_5_15_min": [round(x, 2) for x in os.getloadavg()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=float, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="use this folder, filled by an earlier run or not, and leave it")
    arguments = parser.parse_args()
    with scratch_database(arguments.keep) as (engine, folder):
        with engine.connect() as connection:
            filled = connection.execute(text("SELECT EXISTS (SELECT FROM scores)")).scalar_one()
        notes = folder / "load.json"
        if not filled:
            notes.write_text(json.dumps(load(engine, arguments.rows, arguments.days)))
        took = json.loads(notes.read_text())
        made = report(engine, arguments.rows, arguments.days, took, measure(engine))
    for row in made["panels"][:15]:
        print(f"{row['ms']:9.1f} ms  {row['dashboard']}  {row['panel']}  ({row['chosen']})")
    print(f"{made['within_aim']} of {made['queries']} within {AIM_MS} ms")
    if arguments.out:
        arguments.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
