"""Look-ups of messages by their coordinates, over the partitions of all days.

Contract: `known_messages` finds every row at the given coordinates, on whatever day, and the tombstones of what was
erased (status ERASED); `erased_payloads` finds tombstones alone. `score_counts` says how many of some
probes have scored them; `scored_before_digests` by whom they were scored when probes had no digest. Each is one
constant statement with arrays, so that the driver prepares it once.

Coordinates do not hold the day, so every partition's index is searched. A batch is a section of a stream, so it is
looked up as a few ranges of offsets rather than message by message: 500 messages in 60 partitions are some 60 descents
into an index and not 30,000. Other rows within a range are left out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, Row, text

Key = tuple[str, int, int]

# The status of a tombstone: no message has it. The reason is that of the row that was erased where it was a conflict.
ERASED = "erased"
# The reason of a row whose coordinates held another payload, where the source has no logs to tell apart.
CONFLICT = "another payload is already known at these coordinates (was the topic or file recreated?)"
# The status of what is known and was sampled out: it had waited too long. Its row says skipped, with this reason.
SAMPLED = "sampled"
SAMPLED_OUT = "sampled out: it had waited longer than sample_after_seconds"


@dataclass(frozen=True)
class ScoredBy:
    """A loaded probe. Where `version` is given, scores of unknown digest of that version are its own too; with None
    they are not, but for a probe whose digest is itself unknown ('')."""

    name: str
    digest: str = ""
    version: int | None = None


# A range is cut where offsets are further apart, so that it never spans more rows than that for nothing: after a jump
# in a topic, or in a compacted one. For JSON lines it is the size of a long line, in bytes.
_GAP = 4096

# The inner SELECTs hide the arrays' lengths from the planner: it would plan anew each time, which takes longer than the
# look-up where there are many partitions.
_RANGES = (
    "unnest((SELECT CAST(:sources AS text[])), (SELECT CAST(:partitions AS integer[])), "
    "(SELECT CAST(:lows AS bigint[])), (SELECT CAST(:highs AS bigint[]))) AS r (source, partition, low, high)"
)
# OFFSET 0 keeps the planner from turning the loop over the ranges around: it would read all partitions whole, and join.
_MESSAGES = text(
    f"""
    SELECT m.* FROM {_RANGES} CROSS JOIN LATERAL (
        SELECT source, partition, "offset", sub, payload_sha256, day, status, reason, ingested_at FROM messages
        WHERE source = r.source AND partition = r.partition AND "offset" BETWEEN r.low AND r.high OFFSET 0
    ) AS m
    UNION ALL SELECT m.* FROM {_RANGES} CROSS JOIN LATERAL (
        SELECT source, partition, "offset", sub, payload_sha256, day, '{ERASED}',
            CASE WHEN conflict THEN '{CONFLICT}' END, ingested_at FROM erased_messages
        WHERE source = r.source AND partition = r.partition AND "offset" BETWEEN r.low AND r.high OFFSET 0
    ) AS m
    """  # noqa: S608 - constants of this module
)
_ERASED = text(
    f"""
    SELECT e.* FROM {_RANGES} CROSS JOIN LATERAL (
        SELECT source, partition, "offset", sub, payload_sha256 FROM erased_messages
        WHERE source = r.source AND partition = r.partition AND "offset" BETWEEN r.low AND r.high OFFSET 0
    ) AS e
    """  # noqa: S608
)
_SCORES = text(
    f"""
    SELECT s.source, s.partition, s."offset", s.sub, count(DISTINCT s.probe) FROM {_RANGES} CROSS JOIN LATERAL (
        SELECT source, partition, "offset", sub, probe FROM scores
        WHERE source = r.source AND partition = r.partition AND "offset" BETWEEN r.low AND r.high
        AND day BETWEEN :first AND :last AND (
            probe || '/' || probe_digest = ANY(:digests)
            OR probe_digest = '' AND probe || '/' || probe_version = ANY(:versions)
        ) OFFSET 0
    ) AS s GROUP BY s.source, s.partition, s."offset", s.sub
    """  # noqa: S608
)
_BEFORE_DIGESTS = text(
    f"""
    SELECT s.* FROM {_RANGES} CROSS JOIN LATERAL (
        SELECT source, partition, "offset", sub, probe, probe_version FROM scores
        WHERE source = r.source AND partition = r.partition AND "offset" BETWEEN r.low AND r.high
        AND probe_digest = '' OFFSET 0
    ) AS s
    """  # noqa: S608
)


def known_messages(connection: Connection, keys: Iterable[Key]) -> list[Row[Any]]:
    """The rows of messages at these coordinates: source, partition, offset, sub, payload_sha256, day, status, reason,
    ingested_at. All messages of a record are found; those of conflicts and tombstones too."""
    wanted = set(keys)
    if not wanted:
        return []
    return [r for r in connection.execute(_MESSAGES, _ranges(wanted)) if tuple(r[:3]) in wanted]


def erased_payloads(connection: Connection, keys: Iterable[Key]) -> set[tuple[str, int, int, int, str]]:
    """Coordinates with the sub-index and payload hash of what was erased."""
    wanted = set(keys)
    if not wanted:
        return set()
    rows = connection.execute(_ERASED, _ranges(wanted))
    return {(r[0], r[1], r[2], r[3], r[4]) for r in rows if tuple(r[:3]) in wanted}


def score_counts(
    connection: Connection, keys: Iterable[Key], days: tuple[date, date], probes: Sequence[ScoredBy]
) -> dict[tuple[str, int, int, int], int]:
    """How many of `probes` have scored a message, by its coordinates with the sub-index, where its day is among `days`,
    first and last; 0 is left out."""
    wanted = set(keys)
    if not wanted:
        return {}
    first, last = days
    values = {
        **_ranges(wanted),
        "first": first,
        "last": last,
        "digests": [f"{probe.name}/{probe.digest}" for probe in probes],
        "versions": [f"{probe.name}/{probe.version}" for probe in probes if probe.version is not None],
    }
    return {(r[0], r[1], r[2], r[3]): int(r[4]) for r in connection.execute(_SCORES, values) if tuple(r[:3]) in wanted}


def scored_before_digests(connection: Connection, keys: Iterable[Key]) -> set[tuple[str, int, int, int, str, int]]:
    """Coordinates with the sub-index, probe and version of the scores whose probe's digest is unknown."""
    wanted = set(keys)
    if not wanted:
        return set()
    return {
        (r[0], r[1], r[2], r[3], r[4], r[5])
        for r in connection.execute(_BEFORE_DIGESTS, _ranges(wanted))
        if tuple(r[:3]) in wanted
    }


def _ranges(keys: Iterable[Key]) -> dict[str, list[Any]]:
    """The keys as ranges of offsets (both ends included), one list a column."""
    ranges: list[tuple[str, int, int, int]] = []
    for source, partition, offset in sorted(keys):
        if ranges and ranges[-1][:2] == (source, partition) and offset - ranges[-1][3] <= _GAP:
            ranges[-1] = (*ranges[-1][:3], offset)
        else:
            ranges.append((source, partition, offset, offset))
    columns = zip(*ranges, strict=True)
    return dict(zip(("sources", "partitions", "lows", "highs"), map(list, columns), strict=True))
