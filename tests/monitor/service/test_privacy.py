"""Under `sha256` and `none` nothing of a message's text is stored or told anywhere, whatever format it came in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from sqlalchemy import Engine

from monitor.telemetry import logs, metrics
from probes.model.load import ChatModel
from storage import schema
from tests.support.rows import dump, stored
from tests.support.stream.renderings import RENDERINGS, Call, Conversation, Said, Tool, render
from tests.support.stream.renderings_otlp import Conversation as Traced
from tests.support.stream.renderings_otlp import (
    as_json,
    events_of,
    litellm_payload,
    openinference,
    openllmetry,
    present_attributes,
    traces,
)
from tests.support.stream.worker import lines, make_probe, run_worker

CANARY = "CANARYTEXT"
CALL = Call("call_1", "look_up", {"q": f"{CANARY} asked"})
TALK = Conversation(
    (
        Said("user", f"{CANARY} question"),
        Said("assistant", f"{CANARY} said", (CALL,)),
        Said("tool", f"{CANARY} found", call=CALL),
        Said("user", f"{CANARY} again"),
    ),
    system=f"{CANARY} rules",
    tools=(Tool("look_up", f"{CANARY} described", {"type": "object", "properties": {"q": {"type": "string"}}}),),
    answer=Said("assistant", f"{CANARY} answer"),
)


def spoiled(value: Any) -> Any:
    """Every object with an unknown field, whose name and value hold the text."""
    if isinstance(value, dict):
        return {key: spoiled(each) for key, each in value.items()} | {f"x {CANARY}": [{CANARY: f"{CANARY} hidden"}]}
    if isinstance(value, list):
        return [spoiled(each) for each in value]
    return value


def payloads() -> list[bytes]:
    """The conversation in every format, plain and spoiled; then what cannot be read."""
    values = [render(TALK, name) for name in RENDERINGS]
    _, tools, response = TALK.expected
    traced = Traced(render(TALK, "openai_chat")["messages"], response or "", tools)
    values.append(litellm_payload(traced))
    requests = [
        traces(present_attributes(traced, strings=False)),
        traces(present_attributes(traced, strings=True)),
        traces(openllmetry(traced)),
        traces(openinference(traced)),
        traces({}, events=events_of(traced)),
    ]
    values += [json.loads(as_json(request)) for request in requests]
    odd = [
        {
            "id": "odd1",
            "prompt": f"{CANARY} x",
            "attributes": {name: f"{CANARY} in {name}" for name in ("provider", "a")},
        },
        {"id": "odd2", "prompt": CANARY, "completion": CANARY, "system": CANARY, "input": [{"content": CANARY}]},
        {"id": "odd3", "prompt": CANARY, "response": {CANARY: CANARY}, "timestamp": CANARY, "messages": [CANARY, 7]},
        {"id": "odd4", "nothing": CANARY},
        {"id": "odd5", "messages": [{"role": f"{CANARY} role", "content": {CANARY: CANARY}}], "tools": CANARY},
        {"id": "odd6", "messages": [{"role": "user", "content": [{"type": CANARY, CANARY: CANARY}]}]},
    ]
    whole = [json.dumps(value).encode() for each in values for value in (each, spoiled(each))]
    return [*whole, *(json.dumps(each).encode() for each in odd), f'{{"id": "cut", "prompt": "{CANARY}'.encode()]


@pytest.mark.parametrize("privacy", ["sha256", "none", "full"])
def test_no_text_is_anywhere(
    engine: Engine, chat: ChatModel, tmp_path: Path, capfd: pytest.CaptureFixture[str], privacy: str
) -> None:
    logs.configure()
    written = payloads()
    out = {name: tmp_path / name for name in ("verdicts", "dead_letters")}
    path = lines(tmp_path / "t", written)
    probes = [make_probe(chat, threshold=-1e6), make_probe(chat, "answers", aggregation="last_response")]
    run = run_worker(
        engine,
        chat,
        probes,
        path,
        max_bytes=1 << 20,
        privacy=privacy,
        verdicts=out["verdicts"],
        dead_letters=out["dead_letters"],
    )
    rows = stored(engine, schema.messages)
    assert len(rows) >= len(written)
    assert sum(run.tally.by_status[s] for s in ("scored", "truncated")) >= len(written) - 4
    assert len({r["format"] for r in rows}) >= 8
    everything = dump(engine)
    if privacy == "full":
        assert sum(CANARY in json.dumps(r["text"]) for r in rows) >= len(written) - 4
        everything = "".join(str({**r, "text": None, "attributes": None}) for r in rows)
    else:
        assert not [r["text"] for r in rows if r["text"] is not None]
        assert all((r["text_sha256"] is None) == (privacy == "none") for r in rows if r["status"] == "scored")
    said = capfd.readouterr()
    told = [each.read_text() for each in out.values()]
    for where in (everything, *told, generate_latest(metrics.REGISTRY).decode(), said.out, said.err):
        assert CANARY not in where
    assert all(told)
    assert not [r["reason"] for r in rows if "reader failed" in (r["reason"] or "")]


def test_listed_attributes_and_those_of_the_owner_are_kept(engine: Engine, chat: ChatModel, tmp_path: Path) -> None:
    given = {
        "provider": "acme",
        "temperature": 0.5,
        "stream": True,
        "note": "two words",
        "mine": {"a": [1]},
        "other": 1,
    }
    path = lines(tmp_path / "t", [{"id": "m", "prompt": "hello", "attributes": given}])
    run_worker(engine, chat, [make_probe(chat)], path, attribute_keys=("mine",))
    (row,) = stored(engine, schema.messages)
    assert row["attributes"] == {"provider": "acme", "temperature": 0.5, "stream": True, "mine": {"a": [1]}}


@pytest.mark.parametrize("privacy", ["sha256", "full"])
def test_attributes_are_bounded(engine: Engine, chat: ChatModel, tmp_path: Path, privacy: str) -> None:
    given = {f"k{n}": "x" * 500 for n in range(500)}
    path = lines(tmp_path / "t", [{"id": "m", "prompt": "hello", "attributes": given}])
    run_worker(engine, chat, [make_probe(chat)], path, max_bytes=1 << 20, privacy=privacy, attribute_keys=tuple(given))
    (row,) = stored(engine, schema.messages)
    assert 0 < len(json.dumps(row["attributes"])) <= 9000
