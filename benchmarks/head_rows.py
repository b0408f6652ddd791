"""What the scores of a message's heads cost: as a row a head, which was the form before, and as one array.

    python -m benchmarks.head_rows --out docs/bench-head-rows.json

The same messages are written batch by batch into a real PostgreSQL in three ways: without heads, with their heads as
rows of a table in the form of before (made here), and as arrays, which is what `storage.writer` does. Each way writes
the rows of messages and scores too, by the same writer. The ways alternate, and their order changes, within one
process; figures are medians over `--rounds`: CPU time of this process and of the database, a message; and bytes
on disk of the heads' table with its indexes, a message. Scores of heads are drawn from a normal distribution.

`compression` says what an array's bytes would be under each method that the server has; they are stored as they are.
`roll_up_cpu_ms` is the database's CPU time a message of bringing the sums of the dashboards up to date.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Date, Double, Engine, SmallInteger, Table, Text, text

from benchmarks.grafana_queries import host
from benchmarks.scratch import scratch_database
from storage import schema
from storage.bulk import insert_rows
from storage.coordinates import Coordinates
from storage.partitions import ensure_days, partition_name, utc_today
from storage.rollup import roll_up
from storage.writer import BatchRows, MessageRow, ScoreRow, register_probe, write_batch

WAYS = ("without heads", "rows", "array")
PROBE, DIGEST = "safety-heads", "0123456789abcdef0123456789abcdef"
_KEY = ("source", "partition", "offset", "sub", "probe", "probe_digest", "layer", "head", "day")
# As it was before schema 0014.
ROWS = Table(
    "rows_of_heads",
    schema.metadata,
    *(Column(c.name, c.type, primary_key=True) for c in schema.scores.columns if c.name in _KEY[:4]),
    Column("probe", Text, primary_key=True),
    Column("probe_digest", Text, primary_key=True),
    Column("layer", SmallInteger, primary_key=True),
    Column("head", SmallInteger, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("score", Double, nullable=False),
)


def batches(heads: int, number: int, size: int, source: str) -> list[BatchRows]:
    """Batches of messages with a score each; blocks have nine heads."""
    draw, made = random.Random(7), []
    for first in range(0, number, size):
        batch = BatchRows()
        for offset in range(first, first + size):
            at = Coordinates(source, 0, offset)
            digest = f"{offset:064x}"
            more: dict[str, Any] = {"message_id": f"m-{offset}", "tenant": "shop", "tokens": 100, "text_sha256": digest}
            batch.messages.append(MessageRow(at, digest, utc_today(), "scored", **more))
            scores = tuple((n // 9, n % 9, draw.gauss(0, 0.3)) for n in range(heads))
            batch.scores.append(ScoreRow(at, PROBE, 1, 0.1, 0.5, False, scores, probe_digest=DIGEST))
        made.append(batch)
    return made


def write(connection: Connection, batch: BatchRows, way: str) -> None:
    if way == "array":
        write_batch(connection, batch)
        return
    bare = [ScoreRow(s.at, s.probe, 1, s.score, 0.5, False, probe_digest=DIGEST) for s in batch.scores]
    write_batch(connection, BatchRows(batch.messages, bare))
    if way == "rows":
        day, rows = utc_today(), []
        for s in batch.scores:
            of = {"source": s.at.source, "partition": s.at.partition, "offset": s.at.offset, "sub": s.at.sub}
            of |= {"day": day, "probe": s.probe, "probe_digest": s.probe_digest}
            rows += [{**of, "layer": layer, "head": head, "score": score} for layer, head, score in s.heads]
        insert_rows(connection, ROWS, rows)


def backend_seconds(connection: Connection) -> float:
    """CPU time of all backends of the database, user and system."""
    pids = (
        connection.execute(text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")).scalars().all()
    )
    connection.rollback()
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def empty(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE messages, scores, head_scores, {ROWS.name}, head_rollups, score_rollups"))
        connection.execute(text("TRUNCATE score_histograms, rollup_state"))


def measure(engine: Engine, heads: int, number: int, size: int, rounds: int) -> dict[str, Any]:
    found: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}

    def note(way: str, name: str, value: float) -> None:
        found[way].setdefault(name, []).append(value)

    for turn in range(rounds + 1):
        for way in WAYS[turn % 3 :] + WAYS[: turn % 3]:
            empty(engine)
            made = batches(heads, number, size, "llm.traffic")
            with engine.connect() as connection:
                backends = backend_seconds(connection)
                began = (time.process_time(), backends, time.perf_counter())
                for batch in made:
                    with connection.begin():
                        write(connection, batch, way)
                client, wall = time.process_time(), time.perf_counter()
                took = (client, backend_seconds(connection), wall)
            if not turn:  # the first round warms up
                continue
            for name, since, until in zip(("client_cpu_ms", "postgres_cpu_ms", "wall_ms"), began, took, strict=True):
                note(way, name, 1000 * (until - since) / number)
            if way != "without heads":
                note(way, "disk_bytes", table_bytes(engine, way) / number)
            if way == "array":
                note(way, "roll_up_cpu_ms", rolled_up(engine, number))
    medians = {
        way: {name: round(statistics.median(values), 3) for name, values in figures.items()}
        for way, figures in found.items()
    }
    before, after = medians["rows"], medians["array"]
    return {
        "messages": number,
        **medians,
        "rows over array": {name: round(before[name] / after[name], 1) for name in before if after[name]},
        "compression": compression(engine, number),
    }


def table_bytes(engine: Engine, way: str) -> int:
    name = ROWS.name if way == "rows" else partition_name("head_scores", utc_today())
    with engine.connect() as connection:
        return int(
            connection.execute(
                text("SELECT pg_total_relation_size(CAST(:name AS regclass))"), {"name": name}
            ).scalar_one()
        )


def rolled_up(engine: Engine, number: int) -> float:
    """CPU milliseconds of the database, a message."""
    with engine.begin() as connection:
        # What was written within the last seconds is not rolled up yet.
        connection.execute(text("UPDATE scores SET created_at = created_at - interval '1 minute'"))
    with engine.connect() as connection:
        began = backend_seconds(connection)
        if roll_up(engine) != number:
            raise SystemExit("scores are missing from the sums")
        return 1000 * (backend_seconds(connection) - began) / number


def compression(engine: Engine, number: int) -> dict[str, float]:
    """Bytes on disk a message by method of compression, with all else as in `head_scores`."""
    found = {}
    with engine.connect() as connection:
        methods = connection.execute(
            text("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
        ).scalar_one()
        connection.rollback()
        for method in ("none", *methods):
            with connection.begin() as transaction:
                connection.execute(text("CREATE TABLE compressed (LIKE head_scores INCLUDING ALL)"))
                if method != "none":
                    storage = f"SET STORAGE EXTENDED, ALTER scores SET COMPRESSION {method}"
                    connection.execute(text(f"ALTER TABLE compressed ALTER scores {storage}"))
                # Computed anew, so that the stored form of the value is not copied.
                columns = 'source, partition, "offset", sub, probe, probe_digest, day, layout'
                connection.execute(
                    text(
                        f"INSERT INTO compressed ({columns}, scores) "  # noqa: S608 - our own names
                        f"SELECT {columns}, scores || CAST('{{}}' AS real[]) FROM head_scores"
                    )
                )
                size = connection.execute(text("SELECT pg_total_relation_size('compressed')")).scalar_one()
                found[method] = round(size / number, 1)
                transaction.rollback()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, nargs="+", default=[270, 1024])
    parser.add_argument("--messages", type=int, default=640)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    report: dict[str, Any] = {"batch": given.batch, "rounds": given.rounds}
    with scratch_database() as (engine, _):
        ensure_days(engine, [utc_today(), utc_today() + timedelta(days=1)])
        ROWS.create(engine)
        with engine.begin() as connection:
            report["postgres"] = connection.execute(text("SHOW server_version")).scalar_one()
            register_probe(connection, DIGEST, PROBE, 1, "hash", {})
        for heads in given.heads:
            report[f"{heads} heads"] = measure(engine, heads, given.messages, given.batch, given.rounds)
            print(json.dumps({heads: report[f"{heads} heads"]}, indent=2), flush=True)
    report["machine"] = host()
    if given.out is not None:
        given.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
