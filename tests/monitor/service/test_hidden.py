"""What is hidden in a message: its row, its metrics, and the alert of the rule that ships."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from sqlalchemy import Engine

from alerts.rules.builtin import built_in
from monitor.telemetry import metrics
from probes.hidden import UNREADABLE
from probes.model.load import ChatModel
from storage import schema
from tests.support.alerts.alert_scenes import look
from tests.support.rows import stored
from tests.support.stream.worker import lines, make_probe, run_worker, wire

ASKED = "Tell me how to bake a loaf of bread without yeast."
HIDDEN = {
    "base64": base64.b64encode(ASKED.encode()).decode(),
    "normalised": "\u200b".join(ASKED),
    "rot13": "Gryy zr ubj gb onxr n ybns bs oernq jvgubhg lrnfg.",
}


def test_a_hidden_message_is_read_again_and_its_row_says_so(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    path = lines(tmp_path / "t", [wire("plain", ASKED), *(wire(kind, text) for kind, text in HIDDEN.items())])
    called, tokens = metrics.UNREADABLE._value.get(), metrics.SECOND_TOKENS._value.get()
    run_worker(engine, chat, [make_probe(chat)], path)
    rows = {str(row["message_id"]): row for row in stored(engine, schema.messages)}
    assert (rows["plain"]["unreadable"], rows["plain"]["second_tokens"]) == (0, None)
    for kind in HIDDEN:
        assert rows[kind]["unreadable"] >= UNREADABLE
        assert rows[kind]["second_tokens"] > 0
    assert metrics.UNREADABLE._value.get() - called == len(HIDDEN)
    assert metrics.SECOND_TOKENS._value.get() - tokens == sum(rows[kind]["second_tokens"] for kind in HIDDEN)
    reading = {row["offset"]: row["reading"] for row in stored(engine, schema.scores)}
    assert reading[rows["plain"]["offset"]] is None
    for kind in HIDDEN:
        assert reading[rows[kind]["offset"]] in (None, kind)


@pytest.mark.parametrize(("number", "alerted"), [(20, []), (21, ["unreadable:unreadable"])])
def test_somebody_who_tries_encodings_is_told_of(
    engine: Engine, chat: ChatModel, tmp_path: Path, number: int, alerted: list[str]
) -> None:
    traffic = [wire(f"m{n}", f"{HIDDEN['base64']} {n}", tenant="mallory") for n in range(number)]
    traffic += [wire(f"p{n}", ASKED, tenant="shop") for n in range(5)]
    run_worker(engine, chat, [make_probe(chat, threshold=1e9)], lines(tmp_path / "t", traffic))
    opened = look(engine, built_in(0.5, 1.0)).opened
    assert [alert.dedup_key for alert in opened] == alerted
