"""Stored scores as benign traffic, without the messages that reviewers judged not to be.

Contract: `benign_scores` takes the scores of one digest only: another card's have another scale, and where the digest
is unknown they may be another card's. It leaves out the messages of alerts judged true, and of authorised tests, which
are not benign traffic either. It reports how many were left out, and how many flagged ones have no verdict: those count
as benign, and where some of them are not, the threshold comes out too high.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from storage.queries.alerts import judged_messages
from storage.queries.messages import ScoredMessage, scored_messages, scores_by_digest

# Verdicts on messages that are what the probe detects.
_NOT_BENIGN = ("true", "authorised_test")


def benign_scores(
    connection: Connection, probe: str, digest: str, progress: Callable[[str], None]
) -> list[ScoredMessage]:
    """The scores of a probe's card that may be taken for benign."""
    numbers = scores_by_digest(connection, probe)
    unknown = numbers.pop("", 0)
    others = sum(n for each, n in numbers.items() if each != digest)
    if others or unknown:
        progress(
            f"{others} scores of other cards of {probe} and {unknown} of unknown digest (from before an upgrade) left "
            "out; awry replay scores those messages with this card"
        )
    rows = scored_messages(connection, probe, digest=digest)
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
