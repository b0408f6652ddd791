"""`awry messages list`: pages that leave nothing out, and filters that cannot match."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import Engine

from storage.writer import BatchRows
from tests.support.cli import Invoke, message_of
from tests.support.rows import message, score, write


@pytest.mark.parametrize(
    "more",
    [(), ("--tenant", "shop"), ("--probe", "drift"), ("--since", "7d"), ("--probe", "drift", "--score-from", "0.5")],
)
def test_pages_have_all_messages_of_a_transaction(engine: Engine, run: Invoke, more: tuple[str, ...]) -> None:
    """They were all stored at the same time."""
    rows = [message(n, f"s{n}", message_id=f"m{n}", tenant="shop") for n in range(5)]
    write(engine, BatchRows(rows, [score(n, 0.9) for n in range(5)]))
    seen: list[str] = []
    cursor: tuple[str, ...] = ()
    while True:
        done = run("messages", "list", "--limit", "2", "--json", *more, *cursor)
        assert done.exit_code == 0, done.exception
        seen += [each["message_id"] for each in json.loads(done.stdout)]
        if "--cursor" not in done.stderr:
            break
        assert done.stderr.startswith("awry: there are more: the same command with --cursor ")
        cursor = ("--cursor", done.stderr.split()[-1])
    assert sorted(seen) == [f"m{n}" for n in range(5)]


def test_a_cursor_of_other_filters_is_refused(engine: Engine, run: Invoke) -> None:
    write(engine, BatchRows([message(n, f"s{n}", tenant="shop") for n in range(2)]))
    cursor = run("messages", "list", "--limit", "1").stderr.split()[-1]
    for options in (("--tenant", "shop", "--cursor", cursor), ("--cursor", "junk")):
        said = message_of(run("messages", "list", *options))
        assert said == "cursor: give the one that the list ended with, and the same other options"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("messages", "list", "--score-from", "nan"), "score-from: write a number of class gaps, such as 0.8"),
        (("messages", "list", "--score-to", "-inf"), "score-to: write a number of class gaps, such as 0.8"),
        (("messages", "list", "--id", ""), "id: is empty; write what it is to match, or leave it out"),
        (("messages", "list", "--conversation", " "), "conversation: is empty"),
        (("messages", "list", "--probe", ""), "probe: is empty"),
        (("alerts", "list", "--tenant", ""), "tenant: is empty"),
        (("alerts", "silence", "--rule", ""), "rule: is empty"),
        (("outbox", "list", "--destination", ""), "destination: is empty"),
    ],
)
def test_filters_that_match_nothing(engine: Engine, run: Invoke, arguments: tuple[str, ...], said: str) -> None:
    assert message_of(run(*arguments)).startswith(said)
