"""Traffic of an hour and a half, written by the product's own writer: two probes, three tenants, one shift.

`drift` reads the whole stream and has a card with quantiles; `heads` reads attention heads. Message ids say what they
are: quiet-N and loud-N (flagged by drift), of the tenants shop, bank and none. The conversation talk-1 has three
messages, one mitigated. loud-0 has the text that may be shown, the others none.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from alerts.lifecycle.lifecycle import record_flagged
from alerts.rules.model import Flagged
from storage.coordinates import Coordinates
from storage.partitions import ensure_ahead, utc_today
from storage.rollup import roll_up
from storage.writer import AnswerRow, BatchRows, MessageRow, ScoreRow, register_probe, write_batch
from tests.support.rows import at, digest_of

NOW = datetime.now(UTC).replace(microsecond=0)
QUIET, LOUD = 60, 12
THRESHOLD = 0.5
DRIFT, HEADS = digest_of("drift"), digest_of("heads", 2)
TENANTS = ("shop", "bank", None)
TEXT = {"prompt": "what is shown because it was stored"}


def card(threshold: float = THRESHOLD) -> dict[str, Any]:
    """The parts of a probe's card that dashboards read: benign scores were even between -0.5 and 0.5."""
    quantiles = [[n / 40, -0.5 + n / 40] for n in range(41)]
    fpr = {"value": 0.02, "low": 0.01, "high": 0.03, "n": 500}
    return {
        "description": "a probe for tests",
        "aggregation": "last_prompt",
        "identity": {"model": "tiny", "adapter_scale": 0.7},
        "calibration": {
            "threshold": threshold,
            "target_fpr": 0.02,
            "fpr": fpr,
            "enough": True,
            "n": 500,
            "set_name": "benign.jsonl",
            "quantiles": quantiles,
            "tail": [[0.95, 0.45], [0.99, 0.49]],
        },
        "evaluation": {
            "test": {"auroc": {"value": 0.9}},
            "text_only": {"auroc": {"value": 0.6}},
            "at_threshold": {"tpr": {"value": 0.7}, "fpr": fpr},
        },
    }


def write_production(engine: Engine) -> None:
    assert ensure_ahead(engine)
    day = utc_today()
    batch = BatchRows()
    flagged = []
    for n in range(QUIET + LOUD):
        loud = n >= QUIET
        number, name = (n - QUIET, "loud") if loud else (n, "quiet")
        tenant = "shop" if loud and number < 10 else TENANTS[n % 3]
        talk = "talk-1" if name == "loud" and number < 3 else None
        value = 0.9 + number / 10 if loud else -0.4 + 0.8 * number / QUIET
        stored = TEXT if (loud and number == 0) else None
        batch.messages.append(
            MessageRow(
                at(n),
                f"{n:064x}",
                day,
                "truncated" if n % 7 == 0 else "scored",
                None,
                f"{name}-{number}",
                tenant,
                "u",
                "tiny" if n % 2 else None,
                talk,
                tokens=10,
                text=stored,
                attributes={"k": 1},
            )
        )
        batch.scores.append(ScoreRow(at(n), "drift", 1, value, THRESHOLD, value > THRESHOLD, probe_digest=DRIFT))
        heads = ((0, 1, value / 2), (0, 3, 0.1), (2, 1, -value))
        batch.scores.append(ScoreRow(at(n), "heads", 2, value, 5.0, False, heads, probe_digest=HEADS))
        if loud:
            flagged.append(
                Flagged("drift", value, THRESHOLD, tenant, "tiny", Coordinates("topic", 0, n), f"loud-{number}")
            )
    for n, status in ((900, "invalid"), (901, "failed"), (902, "skipped")):
        batch.messages.append(MessageRow(at(n), "ff", day, status, "prompt: is empty", f"{status}-0", "shop"))
    batch.answers.append(AnswerRow(at(QUIET), "plain", 4, text="the plain answer", text_sha256="a"))
    batch.answers.append(AnswerRow(at(QUIET), "mitigated", 5, "ablate", "the mild answer", "b"))
    with engine.begin() as connection:
        register_probe(connection, DRIFT, "drift", 1, "hash", card())
        register_probe(connection, HEADS, "heads", 2, "hash", {})
        write_batch(connection, batch)
        record_flagged(connection, flagged, ("pager",))
    _spread(engine)
    with engine.begin() as connection:
        # At the time that the tests ask about, however long after it they run.
        connection.execute(text("UPDATE probes SET registered_at = :now"), {"now": NOW})
        connection.execute(
            text(
                "UPDATE alerts SET verdict = 'false', verdict_at = :now, verdict_by = 'eve' "
                "WHERE tenant IS DISTINCT FROM 'shop'"
            ),
            {"now": NOW},
        )
        connection.execute(text("INSERT INTO workers (id, name, source) VALUES (gen_random_uuid(), 'w1', 'topic')"))
    while roll_up(engine) != 0:  # also where somebody else did a part of it
        pass


def _spread(engine: Engine) -> None:
    """As if the rows had been written one after the other, the loud ones in the last ten minutes."""
    with engine.begin() as connection:
        for table, column in (("messages", "ingested_at"), ("scores", "created_at"), ("answers", "created_at")):
            connection.execute(
                text(f"""UPDATE {table} SET {column} = CAST(:now AS timestamptz) - CASE WHEN "offset" < {QUIET}
                    THEN make_interval(secs => 60 * (90 - "offset"))
                    ELSE make_interval(secs => 30 * (20 - least(19, "offset" - {QUIET}))) END"""),  # noqa: S608
                {"now": NOW},
            )


# The rows are written some time after this module is read.
SINCE, UNTIL = NOW - timedelta(hours=2), NOW + timedelta(hours=1)
