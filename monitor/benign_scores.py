"""Stored scores as benign traffic, without what reviewers found not to be.

Contract: `benign_scores` leaves out the messages of alerts judged true, and of authorised tests, which were no benign
traffic either; it says how many, and how many flagged ones nobody has judged: those count as benign, and where some of
them are not, the threshold comes out too high.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from storage.queries.alerts import judged_messages
from storage.queries.messages import ScoredMessage, scored_messages

# Verdicts that say that a message was what the probe looks for.
_FOUND = ("true", "authorised_test")


def benign_scores(connection: Connection, probe: str, say: Callable[[str], None]) -> list[ScoredMessage]:
    """The scores of a probe that may be taken for benign."""
    rows = scored_messages(connection, probe)
    found = judged_messages(connection, probe, _FOUND)
    kept = [row for row in rows if row.at not in found]
    say(f"{len(rows) - len(kept)} of {len(rows)} messages left out: their alerts were judged true or authorised tests")
    calm = judged_messages(connection, probe, ("false",))
    open_questions = sum(row.flagged and row.at not in calm for row in kept)
    if open_questions:
        say(f"{open_questions} flagged messages were judged by nobody and count as benign; see awry alerts verdict")
    return kept
