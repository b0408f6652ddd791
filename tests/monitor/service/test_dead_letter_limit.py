"""A worker stops when too large a share of its messages cannot be scored, and not for a few bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from monitor.errors import TooManyDeadError
from monitor.service.dead_letter_limit import FEWEST, WINDOW, DeadLetterLimit
from probes.model.load import ChatModel
from storage import schema
from tests.support.rows import stored
from tests.support.stream.worker import lines, make_probe, run_worker, wire


def letters(dead: int, live: int) -> list[bool]:
    return [False] * live + [True] * dead


def test_few_messages_are_not_judged() -> None:
    DeadLetterLimit(0.01).check(letters(FEWEST - 1, 0))


def test_a_share_at_the_limit_is_allowed() -> None:
    DeadLetterLimit(0.25).check(letters(25, 75))


def test_a_share_above_the_limit_stops() -> None:
    with pytest.raises(TooManyDeadError, match=r"^dead_letter_limit: 26 of the last 100 messages .* \(limit 0\.25\)"):
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


def test_a_worker_stops_and_does_not_write_the_batch(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    good = [wire(f"m{n}") for n in range(40)]
    path = lines(tmp_path / "t", [*good, *[b"{broken"] * 120, wire("last")])
    with pytest.raises(TooManyDeadError, match=r"^dead_letter_limit: "):
        run_worker(engine, chat, [make_probe(chat)], path, batch_messages=20)
    statuses = [r["status"] for r in stored(engine, schema.messages)]
    # The fifth batch is the first that is judged: 60 of 100 are dead. The four before it are in the tables.
    assert statuses == ["scored"] * 40 + ["invalid"] * 40


def test_a_few_bad_messages_stop_nobody(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    mixed = [wire(f"m{n}") if n % 3 else b"{broken" for n in range(150)]
    run = run_worker(engine, chat, [make_probe(chat)], lines(tmp_path / "t", mixed), batch_messages=20)
    assert run.tally.by_status == {"scored": 100, "invalid": 50}
