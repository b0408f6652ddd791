"""What the worker shows: names from the stream can neither break a terminal's markup nor a log line."""

from __future__ import annotations

import json
import uuid

import pytest

from alerts.lifecycle.lifecycle import Opened
from monitor.service.policy import Tally
from monitor.service.progress import describe, facts, is_terminal, reporting
from monitor.settings import Settings
from monitor.telemetry import logs

NASTY = "threshold:drift:[/red]\n[bold]x\x1b[2J:smol"


def tally() -> Tally:
    found = Tally(messages=10, flagged=2, alerts=1, tokens=500, seconds=2.0)
    for status in ("scored", "scored", "failed"):
        found.count(status)
    return found


def test_the_line_of_the_terminal() -> None:
    assert describe(tally(), 1234, "bytes") == (
        "10 messages (5.0/s, 250 tokens/s), 2 flagged, 1 alerts, 1,234 bytes behind"
    )
    assert "behind" not in describe(Tally(), None, "bytes")


def test_facts_hold_every_status() -> None:
    found = facts(tally())
    assert (found["records"], found["scored"], found["failed"], found["seconds"]) == (10, 2, 1, 2.0)


def test_who_gets_a_terminal() -> None:
    assert is_terminal("terminal")
    assert not is_terminal("json")
    assert not is_terminal("auto")  # pytest's standard error is none


@pytest.mark.parametrize("kind", ["terminal", "json"])
def test_names_from_the_stream_are_shown_as_they_are(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    with reporting(Settings(logs=kind), "bytes") as report:
        report(tally(), [Opened(uuid.uuid4(), "alert.opened", NASTY, "error", "drift")], 0)
    said = capsys.readouterr().err
    if kind == "json":
        assert json.loads(said.splitlines()[0])["dedup_key"] == NASTY
    else:
        assert "ERROR alert.opened threshold:drift:[/red]" in said
        assert "\x1b[2J" not in said
        assert "\\n[bold]x\\x1b[2J:smol" in said
