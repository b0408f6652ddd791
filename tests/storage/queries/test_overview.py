"""Of several cards of one name the page shows the one in use, and scores of that one."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from storage.queries.messages import histogram, scored_messages, scores_by_digest
from storage.queries.overview import known_probes, latest_scores
from storage.rollup import roll_up
from storage.writer import BatchRows, register_probe
from tests.support.rows import message, score, write


@pytest.fixture(autouse=True)
def _registered(engine: Engine) -> None:
    """`drift` with three cards, two of one version; `other`, which has never scored."""
    for name, version, digest in (
        ("drift", 1, "d1"),
        ("drift", 2, "d2"),
        ("drift", 2, "d3"),
        ("other", 1, "o1"),
        ("other", 3, "o3"),
    ):
        with engine.begin() as connection:
            register_probe(connection, digest, name, version, "hash", {"card": digest})


def stores(engine: Engine, offset: int, digest: str, ago: str, version: int = 1, **more: Any) -> None:
    row = score(offset, more.pop("value", 0.9), probe_digest=digest, **more)
    write(engine, BatchRows([message(offset)], [row]))
    with engine.begin() as connection:
        change = "UPDATE scores SET created_at = now() - CAST(:ago AS interval), probe_version = :version "
        where = text(change + 'WHERE "offset" = :offset AND probe_digest = :digest')
        connection.execute(where, {"ago": ago, "version": version, "offset": offset, "digest": digest})


def in_use(engine: Engine) -> dict[str, tuple[str, str | None]]:
    """By name: the card, and the digest of the last score."""
    with engine.connect() as connection:
        found = known_probes(connection)
    assert all(row["card"] == {"card": row["digest"]} for row in found)
    assert [row["name"] for row in found] == ["drift", "other"]
    assert all((row["scored_at"] is None) == (row["scored_digest"] is None) for row in found)
    return {row["name"]: (row["digest"], row["scored_digest"]) for row in found}


def test_the_card_in_use_is_the_one_that_scored_last(engine: Engine) -> None:
    # Of two of the same version the later one.
    assert in_use(engine) == {"drift": ("d3", None), "other": ("o3", None)}
    stores(engine, 0, "", "9 days", version=1)
    assert in_use(engine)["drift"] == ("d1", "")
    stores(engine, 1, "", "8 days", version=2)
    assert in_use(engine)["drift"] == ("d3", "")
    stores(engine, 2, "d2", "7 days", version=2)
    assert in_use(engine)["drift"] == ("d2", "d2")
    # Rolled back to the first.
    stores(engine, 3, "d1", "6 days")
    assert in_use(engine)["drift"] == ("d1", "d1")
    # A replay, as long as there are live scores.
    stores(engine, 4, "d3", "1 day", version=2, shadow=True)
    assert in_use(engine)["drift"] == ("d1", "d1")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM scores WHERE shadow IS NOT TRUE"))
    assert in_use(engine) == {"drift": ("d3", "d3"), "other": ("o3", None)}


def test_a_card_that_was_never_registered_is_not_shown_as_another(engine: Engine) -> None:
    stores(engine, 0, "stranger", "1 day", version=1)
    assert in_use(engine)["drift"] == ("d3", "stranger")


def test_scores_are_of_one_card(engine: Engine) -> None:
    for n in range(4):
        stores(engine, n, "d1", f"{40 - n} minutes", value=0.25)
        stores(engine, n, "d2", f"{30 - n} minutes", version=2, value=0.75)
        stores(engine, 10 + n, "", f"{20 - n} minutes", value=0.5)
    stores(engine, 20, "", "10 minutes", version=2, value=0.5)
    with engine.connect() as connection:
        first = latest_scores(connection, "drift", 1, "d1", 3)
        assert [(s.offset, s.score) for s in first] == [(1, 0.25), (2, 0.25), (3, 0.25)]
        assert {s.score for s in latest_scores(connection, "drift", 2, "d2", 99)} == {0.75}
        assert [s.offset for s in latest_scores(connection, "drift", 1, "", 99)] == [10, 11, 12, 13]
        assert latest_scores(connection, "drift", 3, "d3", 99) == []
        assert [m.score for m in scored_messages(connection, "drift", digest="d2")] == [0.75] * 4
        assert len(scored_messages(connection, "drift")) == 13
        assert scores_by_digest(connection, "drift") == {"d1": 4, "d2": 4, "": 5}
    while roll_up(engine) != 0:
        pass
    with engine.connect() as connection:
        assert histogram(connection, "drift", "d1") == {2: 4}
        assert histogram(connection, "drift", "d2") == {7: 4}
        assert histogram(connection, "drift", "d3") == {}


def test_the_latest_scores_of_a_card_are_looked_for_among_the_latest_of_its_name(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a card that scored last long ago costs no walk through all scores since."""
    monkeypatch.setattr("storage.queries.overview._LATEST", 3)
    stores(engine, 0, "d1", "9 days")
    for n in range(1, 4):
        stores(engine, n, "d2", "1 day", version=2)
    with engine.connect() as connection:
        assert latest_scores(connection, "drift", 1, "d1", 9) == []
        assert len(latest_scores(connection, "drift", 2, "d2", 9)) == 3
