"""Changes of probes and thresholds, from the tables, for annotations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

# Hourly rollups are enough: a threshold changes with a new card, when workers restart.
_CHANGES = text(
    """
    SELECT registered_at AS at, name AS probe, version, (card #>> '{calibration,threshold}')::float8 AS threshold,
        true AS registered, CASE
            WHEN row_number() OVER (PARTITION BY name, version ORDER BY registered_at, digest) > 1 THEN digest ELSE ''
        END AS further FROM probes
    UNION ALL
    SELECT bucket, probe, probe_version, threshold, false, probe_digest FROM (
        SELECT bucket, probe, probe_version, probe_digest, max(threshold) AS threshold,
            lag(max(threshold)) OVER (PARTITION BY probe, probe_version, probe_digest ORDER BY bucket) AS before
        FROM score_rollups WHERE minutes = 60 GROUP BY bucket, probe, probe_version, probe_digest
    ) AS hours WHERE threshold <> before
    ORDER BY 1, 2, 3, 6
    """
)


@dataclass(frozen=True)
class Change:
    """A change of a probe; `key` identifies it across calls. `further` is the digest where the name and version are not
    enough for that: of the second card of one version, and of scores by a known card."""

    at: datetime
    probe: str
    version: int
    threshold: float | None
    registered: bool
    further: str = ""

    @property
    def key(self) -> str:
        kind = "registered" if self.registered else f"threshold-{self.at:%Y%m%dT%H%M}"
        return f"awry:{self.probe}:{self.version}:{kind}" + (f":{self.further[:8]}" if self.further else "")

    @property
    def text(self) -> str:
        threshold = "" if self.threshold is None else f"{self.threshold:.4f}"
        if self.registered:
            return f"probe {self.probe} version {self.version}" + (f", threshold {threshold}" if threshold else "")
        return f"threshold of {self.probe} version {self.version} is {threshold}"


def changes(connection: Connection) -> list[Change]:
    """All changes, oldest first."""
    return [
        Change(r.at, r.probe, r.version, r.threshold, r.registered, r.further) for r in connection.execute(_CHANGES)
    ]
