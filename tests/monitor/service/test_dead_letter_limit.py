"""A worker stops when too large a share of its messages fails, and not for a few, nor for what senders send wrong."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine

from monitor.errors import TooManyDeadError
from monitor.service.dead_letter_limit import FEWEST, WINDOW, DeadLetterLimit
from probes.model.load import ChatModel
from storage import schema
from tests.support.rows import stored
from tests.support.stream.worker import breaking, lines, make_probe, run_worker, wire


def letters(dead: int, live: int) -> list[bool]:
    return [False] * live + [True] * dead


def test_few_messages_are_not_judged() -> None:
    DeadLetterLimit(0.01).check(letters(FEWEST - 1, 0))


def test_a_share_at_the_limit_is_allowed() -> None:
    DeadLetterLimit(0.25).check(letters(25, 75))


def test_a_share_above_the_limit_stops() -> None:
    with pytest.raises(
        TooManyDeadError, match=r"^dead_letter_limit: .* for 26 of the last 100 messages \(limit 0\.25\)"
    ):
        DeadLetterLimit(0.25).check(letters(26, 74))


def test_batches_add_up() -> None:
    limit = DeadLetterLimit(0.5)
    for _ in range(9):
        limit.check(letters(6, 4))
    with pytest.raises(TooManyDeadError, match="60 of the last 100"):
        limit.check(letters(6, 4))


def test_only_the_last_messages_count() -> None:
    """What was dead longer ago than the window no longer counts; what lived neither."""
    limit = DeadLetterLimit(0.5)
    limit.check(letters(WINDOW // 2, WINDOW // 2))
    limit.check(letters(0, WINDOW))
    for _ in range(5):
        limit.check(letters(WINDOW // 10, 0))
    with pytest.raises(TooManyDeadError, match=f"{WINDOW // 2 + 1} of the last {WINDOW}"):
        limit.check(letters(1, 0))


def test_a_limit_of_one_never_stops() -> None:
    DeadLetterLimit(1.0).check(letters(WINDOW, 0))


def test_a_worker_stops_and_does_not_write_the_batch(
    engine: Engine, chat: ChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, chat, "BREAKS")
    good = [wire(f"m{n}") for n in range(40)]
    path = lines(tmp_path / "t", [*good, *[wire(f"b{n}", "BREAKS") for n in range(120)], wire("last")])
    with pytest.raises(TooManyDeadError, match=r"^dead_letter_limit: "):
        run_worker(engine, chat, [make_probe(chat)], path, batch_messages=20)
    statuses = [r["status"] for r in stored(engine, schema.messages)]
    # The fifth batch is the first that is judged: 60 of 100 failed. The four before it are in the tables.
    assert statuses == ["scored"] * 40 + ["failed"] * 40


def test_what_senders_send_wrong_stops_nobody(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    """One tenant's flood; the other's messages behind it are scored, and the rows say whose the flood was."""
    flood = [json.dumps({"tenant": "mallory", "id": f"f{n}", "nothing": 1}).encode() for n in range(300)]
    path = lines(tmp_path / "t", [*flood, *[b"{broken"] * 50, *[wire(f"v{n}", tenant="victim") for n in range(30)]])
    run = run_worker(engine, chat, [make_probe(chat)], path, batch_messages=20)
    assert run.tally.by_status == {"scored": 30, "invalid": 350}
    found = stored(engine, schema.messages)
    assert Counter((r["status"], r["tenant"]) for r in found) == {
        ("invalid", "mallory"): 300,
        ("invalid", None): 50,
        ("scored", "victim"): 30,
    }
