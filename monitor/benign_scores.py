"""Stored scores as benign traffic, without the messages that reviewers judged not to be.

Contract: `benign_scores` leaves out the messages of alerts judged true, and of authorised tests, which are not benign
traffic either; it reports how many, and how many flagged ones have no verdict: those count as benign, and where some of
them are not, the threshold comes out too high.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from storage.queries.alerts import judged_messages
from storage.queries.messages import ScoredMessage, scored_messages

# Verdicts on messages that are what the probe detects.
_NOT_BENIGN = ("true", "authorised_test")


def benign_scores(connection: Connection, probe: str, progress: Callable[[str], None]) -> list[ScoredMessage]:
    """The scores of a probe that may be taken for benign."""
    rows = scored_messages(connection, probe)
    excluded = judged_messages(connection, probe, _NOT_BENIGN)
    benign = [row for row in rows if row.at not in excluded]
    progress(
        f"{len(rows) - len(benign)} of {len(rows)} messages left out: their alerts were judged true or authorised tests"
    )
    judged_false = judged_messages(connection, probe, ("false",))
    without_verdict = sum(row.flagged and row.at not in judged_false for row in benign)
    if without_verdict:
        progress(f"{without_verdict} flagged messages have no verdict and count as benign; see awry alerts verdict")
    return benign
