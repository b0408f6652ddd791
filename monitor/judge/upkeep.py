"""What is done beside the judging: bands that follow the traffic, the day's count of questions, rows that were left.

Contract: within `keeping(...)` a thread does it at once and then every few minutes. A band is sized so that the budget
pays for it: by the stored scores of the last 24 hours where there are enough, else by the calibration; bands that the
owner set stay. Questions of all workers count against the budget. Rows whose worker is gone (they wait longer than any
worker would) become `not asked`. No error stops the process; one is logged once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine

from awry.periodic import periodic
from monitor.judge.band import ENOUGH, Band, band_around, band_of_traffic, share_of
from monitor.judge.judging import Judging
from monitor.judge.recording import leave_abandoned
from monitor.telemetry import logs, metrics
from probes.card import Probe
from storage.queries.judged import Recent, asked_in_a_day, recent_scores

EVERY_SECONDS = 300.0
_JOIN_SECONDS = 5.0
# Scores that a band is sized by, the newest ones.
NEWEST = 20_000
# What came in less time than this is no measure of a day.
_SHORTEST = 3600.0
_DAY = 86_400.0


@dataclass(frozen=True)
class Sizing:
    """How a probe's band is sized: a share of the budget of questions a day, or as the owner set it."""

    probe: Probe
    per_day: float
    fixed: Band | None = None
    shadow: bool = False

    def band(self, recent: Recent) -> Band:
        """The band for traffic as it was."""
        if self.fixed is not None:
            return self.fixed
        threshold, number = self.probe.card.threshold, len(recent.scores)
        share = share_of(self.per_day, number / max(recent.seconds, _SHORTEST) * _DAY)
        if number >= ENOUGH:
            return band_of_traffic(threshold, share, recent.scores)
        return band_around(threshold, share, self.probe.card.calibration)


def resize(engine: Engine, judging: Judging, sizings: Sequence[Sizing]) -> None:
    """Size all bands by the traffic of the last day, and count its questions."""
    with engine.connect() as connection:
        judging.cap.set_all(asked_in_a_day(connection))
        for sizing in sizings:
            name, digest = sizing.probe.name, sizing.probe.digest
            recent = Recent((), 0.0)
            if sizing.fixed is None:
                recent = recent_scores(connection, name, digest, NEWEST, shadow=sizing.shadow)
            band = sizing.band(recent)
            judging.bands[name] = band
            metrics.JUDGE_BAND.labels(name, "low").set(band.low)
            metrics.JUDGE_BAND.labels(name, "high").set(band.high)


@contextmanager
def keeping(
    engine: Engine,
    judging: Judging,
    sizings: Sequence[Sizing],
    abandoned_after: timedelta,
    every: float = EVERY_SECONDS,
) -> Iterator[None]:
    """Do it until the block ends."""
    reported = False

    def work() -> None:
        nonlocal reported
        try:
            resize(engine, judging, sizings)
            left = leave_abandoned(engine, abandoned_after)
            if left:
                logs.logger().warning("messages of a worker that is gone were not judged", number=left)
            reported = False
        except Exception as error:  # a thread that ended would leave bands and budget as they are
            if not reported:
                logs.logger().warning("the judge's bands are not up to date", error=type(error).__name__)
            reported = True

    with periodic(work, every=every, first=every, name="judge-upkeep", join_seconds=_JOIN_SECONDS):
        yield
