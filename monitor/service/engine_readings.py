"""What the worker does with readings beside scoring them: which become rows, and what is missing.

Contract: `kept` runs in the transaction that stores a batch, before its rows are written. It takes down what was read
of each engine (`storage.readings`), and gives the messages that are to be stored: a request has one row, that of its
final reading. A reading of a running answer has a row of its own only where it is flagged, once a request; heartbeats,
and what the engine has sent twice, have none. `told` are the alerts' scores without those of a final reading whose
probe has flagged the running answer already, unless they make it worse.

`watching` counts what is missing once it is old enough, tells engines that have ended without a word, and never stops
the worker. A worker that is behind judges nobody, and lets no other worker of its streams: what is missing may be in
what it has not read. Nor does one that has just started.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta

from sqlalchemy import Connection, Engine

from alerts.rules.model import Flagged, ThresholdRule, max_severity
from awry.periodic import periodic
from monitor.readings.schema import FINAL, HEARTBEAT, PARTIAL, Reading
from monitor.service.batch_rows import ProcessedMessage
from monitor.stream.record import Source
from monitor.telemetry import logs, metrics
from storage import reading_partials, readings
from storage.coordinates import Coordinates
from storage.reading_partials import Partial, Request
from storage.readings import Published
from storage.sources import KnownMessages

_EVERY_SECONDS = 5.0
# Engines send a heartbeat every ten seconds: one that is silent for less has not ended, however short the grace is.
_SILENT = timedelta(seconds=30)
# Of a reading, where the lag is in bytes.
_BYTES = 500


class EngineReadings:
    """Of one worker. `behind_from` is the lag from which it judges nobody."""

    def __init__(self, engine: Engine, source: Source, grace_seconds: float, *, behind_from: int) -> None:
        self._engine = engine
        self._source = source
        self._grace = timedelta(seconds=grace_seconds)
        self._every = min(_EVERY_SECONDS, grace_seconds)
        self._behind_from = behind_from
        self._lock = threading.Lock()
        self._streams = set(source.name.split(","))
        # Streams whose instances are watched from now on, however long nobody has read them.
        self._greeted: set[str] = set()
        # Greeted in the transaction of the last `kept`.
        self._greeting: set[str] = set()
        self._began = time.monotonic()
        self._repeated = 0

    def kept(
        self,
        connection: Connection,
        batch: Sequence[ProcessedMessage],
        known: KnownMessages,
        day_of: Callable[[ProcessedMessage], date],
    ) -> tuple[list[ProcessedMessage], dict[Coordinates, Partial]]:
        """The messages to be stored; and by the place of a final one, the partial one that it ends."""
        of = [(each, each.reading) for each in batch if each.reading is not None]
        streams = {each.record.at.source for each, _ in of}
        self._greeting = self._greet(connection, streams)
        stored = {(Coordinates(*key, sub), one.payload_sha256) for key, found in known.items() for sub, one in found}
        again = readings.track(connection, [_published(each, of_, stored) for each, of_ in of])
        left_out = {id(each) for (each, _), repeated in zip(of, again, strict=True) if repeated}
        with self._lock:
            self._streams |= streams
            self._repeated = len(left_out)
        left_out |= {id(each) for each, of_ in of if of_.kind == HEARTBEAT}
        running = [(each, of_) for each, of_ in of if of_.kind == PARTIAL and id(each) not in left_out]
        flagged = {each.at: _partial(each, of_, day_of(each)) for each, of_ in running if each.flagged}
        begun = reading_partials.begin(connection, flagged.values())
        # A row that is there already stays, with whatever it says.
        here = {each.at for each, _ in running if (each.at, each.sha256) in stored}
        left_out |= {id(each) for each, _ in running if each.at not in begun | here}
        final = {_request(each, of_): each.at for each, of_ in of if of_.kind == FINAL and id(each) not in left_out}
        ended = reading_partials.end(connection, list(final))
        return (
            [each for each in batch if id(each) not in left_out],
            {final[request]: partial for request, partial in ended.items()},
        )

    def stored(self) -> None:
        """The transaction of the last `kept` was committed."""
        metrics.READINGS_REPEATED.inc(self._repeated)
        with self._lock:
            self._greeted |= self._greeting

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look every few seconds until the block ends, and once then."""
        with periodic(self.look, every=self._every, name="awry-readings-gaps", first=self._every):
            yield
        self.look(ended=self._source.finished)

    def look(self, *, ended: bool = False) -> None:
        """Count what is missing."""
        with self._lock:
            streams = set(self._streams)
        greeted: set[str] = set()
        holes = ended
        try:
            with self._engine.begin() as connection:
                if ended:
                    readings.leave(connection, streams)
                elif self._is_behind():
                    readings.seen_now(connection, streams)
                    readings.put_off(connection, streams)
                else:
                    greeted = self._greet(connection, streams)
                    readings.watch(connection, streams, max(self._grace, _SILENT))
                    holes = time.monotonic() - self._began >= self._grace.total_seconds()
                counted = readings.count_gaps(connection, self._grace, streams, holes=holes)
        except Exception as error:  # the next time is soon
            with self._lock:
                # What was sent while the database was away is not in it yet.
                self._greeted.clear()
            logs.logger().warning("gaps of readings were not counted", reason=type(error).__name__)
            return
        with self._lock:
            self._greeted |= greeted
        for gap in counted:
            metrics.READING_GAPS.labels(gap.kind).inc()
            metrics.READINGS_LOST.inc(gap.readings or 0)
            logs.logger().warning("readings are missing", kind=gap.kind, readings=gap.readings)

    def _greet(self, connection: Connection, streams: Collection[str]) -> set[str]:
        """Those that are new; they are greeted once the transaction is committed."""
        with self._lock:
            new = set(streams) - self._greeted
        if new:
            readings.seen_now(connection, new)
        return new

    def _is_behind(self) -> bool:
        lag, unit = self._source.lag, self._source.lag_unit
        limit = self._behind_from if unit == "messages" else self._behind_from * _BYTES
        return self._source.trouble is not None or (lag is not None and lag > limit)


def told(
    connection: Connection,
    flagged: Sequence[Flagged],
    ended: Mapping[Coordinates, Partial],
    rules: Sequence[ThresholdRule],
) -> list[Flagged]:
    """Without those that an alert has counted while the answer was running."""
    if not ended:
        return list(flagged)
    by_place: dict[Coordinates, list[str]] = {}
    told = []
    for each in flagged:
        partial = ended.get(each.coordinates)
        before = partial.scores.get(each.probe) if partial is not None else None
        if before is None or not each.flagged:
            told.append(each)
            continue
        by_place.setdefault(each.coordinates, []).append(each.probe)
        if any(_worse(rule, each, before) for rule in rules):
            told.append(each)
    for at, probes in by_place.items():
        reading_partials.replaced(connection, ended[at], probes)
    return told


def _published(each: ProcessedMessage, reading: Reading, stored: Collection[tuple[Coordinates, str]]) -> Published:
    return Published(
        each.record.at.source,
        reading.instance,
        reading.sequence,
        reading.engine,
        reading.model,
        reading.dropped,
        reading.closed,
        known=(each.at, each.sha256) in stored,
    )


def _request(each: ProcessedMessage, reading: Reading) -> Request:
    """By the engine's own id: the other one is what the client sent, and two answers may have the same."""
    return (each.record.at.source, reading.instance, reading.request or reading.id or "")


def _partial(each: ProcessedMessage, reading: Reading, day: date) -> Partial:
    over = {score.probe.name: score.score for score in each.scores if score.flagged}
    return Partial(_request(each, reading), each.at, day, over)


def _worse(rule: ThresholdRule, flagged: Flagged, before: float) -> bool:
    """Whether the rule calls the score worse than that of the running answer."""
    if not rule.matches(flagged):
        return False
    then, now = rule.severity_of(replace(flagged, score=before)), rule.severity_of(flagged)
    return then != now and max_severity(then, now) == now
