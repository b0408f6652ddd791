"""Turns of conversations as the worker stores them: the message, its score, and what its alert makes of it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from alerts.lifecycle.lifecycle import Opened, record_flagged
from alerts.rules.model import Flagged, ThresholdRule
from storage.coordinates import Coordinates
from storage.partitions import utc_today
from storage.writer import BatchRows, MessageRow, ScoreRow, write_batch
from tests.support.rows import digest_of

# (offset, conversation, tenant, score); flagged above 0.5.
Turn = tuple[int, str | None, str | None, float]


def turn(n: int, conversation: str | None = "talk", tenant: str | None = "shop", value: float = 0.6) -> Turn:
    return n, conversation, tenant, value


def take(
    engine: Engine, *turns: Turn, rules: Sequence[ThresholdRule] = (ThresholdRule(),), sub: int = 0
) -> list[Opened]:
    """One batch: written, and its flagged scores recorded, in one transaction."""
    batch, flagged, today = BatchRows(), [], utc_today()
    for n, conversation, tenant, value in turns:
        at = Coordinates("topic", 0, n, sub)
        names = {"message_id": f"m{n}", "tenant": tenant, "model": "smol", "conversation_id": conversation}
        batch.messages.append(MessageRow(at, f"s{n}.{sub}", today, "scored", **names))  # type: ignore[arg-type]
        batch.scores.append(ScoreRow(at, "drift", 1, value, 0.5, value > 0.5, probe_digest=digest_of("drift")))
        if value > 0.5:
            flagged.append(Flagged("drift", value, 0.5, tenant, "smol", at, f"m{n}", conversation, today))
    with engine.begin() as connection:
        write_batch(connection, batch)
        return record_flagged(connection, flagged, ["pager"], rules)
