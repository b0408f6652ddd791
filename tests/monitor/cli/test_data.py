"""`awry data long`: what it prints is read back as benign messages of the wanted length."""

from __future__ import annotations

import json
from pathlib import Path

from monitor.datasets import read_messages
from probes.organisms.long_text import estimated_tokens
from tests.support.cli import invoke, message_of, output_of


def test_long_messages_are_read_back_as_they_were_composed(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(output_of(invoke("data", "long", "--split", "calibrate", "--tokens", "400", "--count", "10")))
    rows = read_messages(path, labelled=True)
    assert [row.label for row in rows] == [False] * 10
    assert len({row.message.id for row in rows}) == 10
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for row, line in zip(rows, lines, strict=True):
        assert [(t["role"], t["content"]) for t in row.message.turns] == [
            (t["role"], t["content"]) for t in line["messages"]
        ]
        assert row.message.response is None
        assert 340 <= estimated_tokens(row.text) <= 450
    assert {line["kind"] for line in lines} == {"paste", "several", "code", "conversation", "everyday"}


def test_the_seed_chooses_the_messages() -> None:
    first, again, other = (
        output_of(invoke("data", "long", "--count", "3", "--tokens", "100", "--seed", seed)) for seed in ("1", "1", "2")
    )
    assert first == again
    assert not set(first.splitlines()) & set(other.splitlines())


def test_mistakes_are_named() -> None:
    assert message_of(invoke("data", "long", "--tokens", "5")).startswith("tokens: 5 is below 48")
    assert message_of(invoke("data", "long", "--count", "0")).startswith("count: 0 is not positive")
    said = message_of(invoke("data", "long", "--split", "demo"))
    assert said.startswith("data: long demo is none of ")
    assert said.endswith("long fit|select|calibrate|test")
