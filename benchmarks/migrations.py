"""How long each migration takes on millions of messages in a real PostgreSQL, which locks it takes, and how long a
writer waits meanwhile.

    python -m benchmarks.migrations --start 0008 --rows 10 --out docs/bench-migrations.json
    python -m benchmarks.migrations --start 0013 --rows 0.1 --with-heads 100000 --out docs/bench-migrations-heads.json

A database of schema `--start` is filled as `benchmarks.search` fills it, with the scores of 270 heads for each of
`--with-heads` messages, a row a head as schemas before 0014 have them, and taken to head one migration at a time,
each in its transaction, and then to the roles and policies that an upgrade ends with. Then the indexes that partitions
lack are built, while another connection inserts a message every 10 ms: what the slowest insert took is what a worker
would have waited. Locks are those of partitioned tables and their partitions that stop reading (AccessExclusive) or
writing (Share and above).
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from benchmarks.grafana_queries import host
from benchmarks.scratch import scratch_database
from benchmarks.search import MILLION, fill, last_days
from storage.database import migrations
from storage.index_builds import build_indexes
from storage.partitions import partition_name, utc_today
from storage.tenant_access import set_up

HEADS = 270
_STRONG = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
_LOCKS = text(
    """
    SELECT DISTINCT mode, coalesce(parent.relname, c.relname)
    FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation AND c.relkind IN ('r', 'p')
        LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid LEFT JOIN pg_class AS parent ON parent.oid = i.inhparent
    WHERE l.pid = pg_backend_pid() AND l.granted AND mode = ANY(:strong)
        AND coalesce(parent.relname, c.relname) IN ('messages', 'scores', 'head_scores', 'answers')
    ORDER BY 2, 1
    """
)
_INSERT = text(
    """INSERT INTO messages (source, partition, "offset", sub, payload_sha256, day, status, tokens)
    VALUES ('writer', 0, :n, 0, 'x', :day, 'scored', 1)"""
)


def step(engine: Engine, work: Callable[[Connection], object]) -> dict[str, Any]:
    """What `work` does in one transaction: seconds, and the locks that it held at its end."""
    began = time.perf_counter()
    with engine.begin() as connection:
        work(connection)
        locks = [f"{mode} on {table}" for mode, table in connection.execute(_LOCKS, {"strong": list(_STRONG)})]
    return {"seconds": round(time.perf_counter() - began, 2), "locks": locks}


def migrate(revision: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        config = migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    return work


def builds(engine: Engine) -> dict[str, Any]:
    """Builds of indexes with a writer beside them."""
    done, slowest, count = threading.Event(), 0.0, 0

    def write() -> None:
        nonlocal slowest, count
        while not done.wait(0.01):
            began = time.perf_counter()
            with engine.begin() as connection:
                connection.execute(_INSERT, {"n": count, "day": utc_today()})
            slowest, count = max(slowest, time.perf_counter() - began), count + 1

    writer = threading.Thread(target=write)
    writer.start()
    began = time.perf_counter()
    try:
        made = build_indexes(engine)
    finally:
        done.set()
        writer.join()
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "indexes": made,
        "inserts_meanwhile": count,
        "slowest_insert_ms": round(1000 * slowest, 1),
    }


def make_partitions(engine: Engine, days: int) -> None:
    """Partitions of the last days as every schema knows them; what makes them otherwise needs the schema of today."""
    with engine.begin() as connection:
        for table in ("messages", "scores", "head_scores", "answers"):
            for day in last_days(days):
                bounds = f"FROM ('{day}') TO ('{day + timedelta(days=1)}')"
                name = partition_name(table, day)
                connection.execute(text(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES {bounds}"))


_HEAD_ROWS = text(
    """INSERT INTO head_scores (source, partition, "offset", sub, probe, probe_digest, layer, head, day, score)
    SELECT source, partition, "offset", sub, 'harm', 'digest', h / 9, h % 9, day, random()
    FROM (SELECT * FROM messages WHERE day = :day ORDER BY "offset" LIMIT :number) AS m
        CROSS JOIN generate_series(0, :heads - 1) AS h"""
)


def fill_heads(engine: Engine, messages: int, days: int) -> dict[str, int]:
    """Scores of heads for so many messages, as many each day; rows, and bytes on disk."""
    for day in last_days(days):
        with engine.begin() as connection:
            connection.execute(_HEAD_ROWS, {"day": day, "number": messages // days, "heads": HEADS})
        print(f"{day}: heads of {messages // days:,} messages", flush=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE head_scores"))
    return {"rows": messages // days * days * HEADS, "bytes": head_bytes(engine)}


def head_bytes(engine: Engine) -> int:
    """Of all partitions of head_scores with their indexes."""
    size = "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('head_scores')"
    with engine.connect() as connection:
        return int(connection.execute(text(size)).scalar_one())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="0008", help="the schema that is filled, 0008 or later")
    parser.add_argument("--rows", type=float, default=1.0, help="millions of messages")
    parser.add_argument("--with-heads", type=int, default=0, help=f"messages with scores of {HEADS} heads")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with scratch_database(empty=True) as (engine, _):
        first = step(engine, migrate(given.start))
        print(f"schema {given.start} made in {first['seconds']} s", flush=True)
        make_partitions(engine, given.days)
        fill(engine, int(given.rows * MILLION), given.days)
        scripts = ScriptDirectory.from_config(migrations())
        report: dict[str, Any] = {"rows": int(given.rows * MILLION), "days": given.days, "start": given.start}
        if given.with_heads:
            report["head scores before"] = fill_heads(engine, given.with_heads, given.days)
        for each in reversed(list(scripts.iterate_revisions("head", given.start))):
            report[each.revision] = step(engine, migrate(each.revision))
            print(each.revision, report[each.revision], flush=True)
        if given.with_heads:
            report["head scores after"] = {"bytes": head_bytes(engine)}
        report["roles and policies"] = step(engine, set_up)
        print("roles and policies", report["roles and policies"], flush=True)
        report["indexes"] = builds(engine)
        print("indexes", report["indexes"], flush=True)
    report["machine"] = host()
    if given.out is not None:
        given.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
