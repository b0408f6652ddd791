"""`awry probes`: the registry, from a card on disk to a worker that loads what is live, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from monitor.errors import SettingsError
from monitor.service.registered import fetch, fetch_one
from probes.card import load_probe, save_probe
from probes.model.load import ChatModel
from storage import schema
from storage.probe_registry import RegistryError
from tests.support.cli import Invoke, awry, message_of, output_of
from tests.support.rows import stored
from tests.support.stream.worker import lines, make_probe, wire


@pytest.fixture
def cards(chat: ChatModel, tmp_path: Path) -> tuple[Path, Path]:
    """Version 1, and another of the same name that is version 1 as well."""
    first = save_probe(make_probe(chat, threshold=1e6), tmp_path / "one")
    second = save_probe(make_probe(chat, threshold=-1e6, aggregation="mean(prompt)"), tmp_path / "two")
    return first, second


def listed(run: Invoke) -> dict[int, str]:
    found = json.loads(output_of(run("probes", "list", "--registry", "--json")))
    return {entry["version"]: entry["stage"] for entry in found}


def test_from_a_card_to_live_and_back(run: Invoke, engine: Engine, cards: tuple[Path, Path], tmp_path: Path) -> None:
    assert "nothing is registered" in output_of(run("probes", "list", "--registry"))
    output_of(run("probes", "add", cards[0], "--as", "ann"))
    assert "--as-version 2" in message_of(run("probes", "add", cards[1]))
    output_of(run("probes", "add", cards[1], "--as-version", "2"))
    output_of(run("probes", "add", cards[0]))  # again: nothing changes
    assert listed(run) == {1: "registered", 2: "registered"}
    output_of(run("probes", "promote", "drift@1"))
    output_of(run("probes", "promote", "drift@2", "--stage", "shadow"))
    assert listed(run) == {1: "live", 2: "shadow"}
    output_of(run("probes", "promote", "drift@2"))
    assert listed(run) == {1: "retired", 2: "live"}
    output_of(run("probes", "rollback", "drift"))
    assert listed(run) == {1: "live", 2: "retired"}
    output_of(run("probes", "retire", "drift@1"))
    assert listed(run) == {1: "retired", 2: "retired"}
    assert "stage: use live or shadow" in message_of(run("probes", "promote", "drift@1", "--stage", "retired"))
    with engine.connect() as connection:
        rows = connection.execute(select(schema.audit.c.action, schema.audit.c.who).order_by(schema.audit.c.at)).all()
    assert [row.action for row in rows] == [
        *("add probe", "add probe", "promote probe", "promote probe", "promote probe"),
        *("roll back probe", "retire probe"),
    ]
    assert rows[0].who == "ann"
    output_of(run("probes", "show", "drift@1", "--out", tmp_path / "out"))
    for suffix in (".json", ".safetensors"):
        written = (tmp_path / "out" / f"drift{suffix}").read_bytes()
        assert written == cards[0].with_suffix(suffix).read_bytes()


def test_what_differs_is_told(run: Invoke, cards: tuple[Path, Path]) -> None:
    output_of(run("probes", "add", cards[0]))
    found = {row["what"]: row for row in json.loads(output_of(run("probes", "diff", "drift", cards[1], "--json")))}
    assert (found["aggregation"]["one"], found["aggregation"]["other"]) == ("last_prompt", "mean(prompt)")
    assert {"digest", "threshold", "cosine of the directions at residual[1]"} <= set(found)
    assert "model: revision" not in found
    assert "nothing differs" in output_of(run("probes", "diff", "drift", cards[0]))
    assert "not in the registry" in message_of(run("probes", "diff", "drift", "nothing-such"))


def test_a_probe_named_like_a_stage_is_refused(run: Invoke, chat: ChatModel, tmp_path: Path) -> None:
    card = save_probe(make_probe(chat, "live"), tmp_path)
    assert "is the name of a stage" in message_of(run("probes", "add", card))


def test_a_broken_card_is_refused(run: Invoke, cards: tuple[Path, Path]) -> None:
    cards[0].with_suffix(".safetensors").write_bytes(b"\0" * 100)
    assert "is not the file that its card was written for" in message_of(run("probes", "add", cards[0]))
    assert listed(run) == {}


def test_a_worker_loads_what_is_live_and_its_scores_go_by_digest(
    run: Invoke, engine: Engine, tiny_folder: Path, postgres_database: str, tmp_path: Path
) -> None:
    tiny = tiny_folder / "tiny-chat"
    output_of(run("probes", "add", tiny_folder / "drift.json"))
    path = lines(tmp_path / "stream.jsonl", [wire(f"m{n}", "hello there") for n in range(3)])
    worker = ("run", "--model", tiny, "--database-url", postgres_database, "--source", path)
    done = awry(*worker, "--probe", "registry:live")
    assert done.returncode == 1
    assert "no probe of the registry that is live was made for" in done.stderr
    output_of(run("probes", "promote", "drift", "--stage", "shadow"))
    done = awry(*worker, "--probe", "registry:shadow", "--state-dir", tmp_path / "state")
    assert done.returncode == 0, done.stderr
    digest = load_probe(tiny_folder / "drift.json").digest
    assert {(row["probe_digest"], row["shadow"]) for row in stored(engine, schema.scores)} == {(digest, True)}
    assert stored(engine, schema.alerts) == []


def test_files_that_were_changed_in_the_database_are_refused(
    run: Invoke, engine: Engine, cards: tuple[Path, Path], tmp_path: Path
) -> None:
    output_of(run("probes", "add", cards[0]))
    entry, path = fetch(engine, tmp_path / "state", "drift")
    assert load_probe(path).digest == entry.digest
    with engine.begin() as connection:
        card = json.loads(cards[0].read_text())
        card["calibration"]["threshold"] = -5.0
        changed = json.dumps(card).encode()
        connection.execute(schema.registered_probes.update().values(card=changed))
    with pytest.raises(RegistryError, match="are not what was added"):
        fetch(engine, tmp_path / "state", "drift")


def test_a_replay_takes_a_stage_that_has_one_probe(
    run: Invoke, engine: Engine, cards: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="no probe is live; name one"):
        fetch_one(engine, tmp_path / "state", "live")
    output_of(run("probes", "add", cards[0]))
    output_of(run("probes", "promote", "drift"))
    entry, path = fetch_one(engine, tmp_path / "state", "live")
    assert load_probe(path).digest == entry.digest == load_probe(cards[0]).digest
