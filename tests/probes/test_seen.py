from __future__ import annotations

import pytest

from probes import seen
from probes.seen import RowSet, SeenRows, row_set, seen_among, seen_warning, text_of

SECRET = "zebrasecret"


def test_a_card_holds_digests_and_no_text() -> None:
    found = row_set([SECRET, "b", SECRET])
    assert found.n == 2
    assert found.rows is not None
    assert sorted(found.rows) == found.rows
    assert {len(each) for each in found.rows} == {12}
    assert SECRET not in found.model_dump_json()
    assert row_set(["b", SECRET]) == found


def test_rows_of_each_set_are_counted_as_often_as_they_are_given() -> None:
    card = SeenRows(fit=row_set(["a", "b"]), select=row_set(["c"]), calibration=RowSet(n=40, sha256="0"))
    found = seen_among(card, ["a", "a", "c", "d"])
    assert found == {"fit": 2, "select": 1, "calibration": None}
    assert seen_warning(found, 4, "p") == (
        "warning: of these 4 messages p has seen some: 2 were rows that it was fitted on, "
        "1 were rows that it was chosen on; figures on them are too good"
    )
    assert seen_warning(seen_among(card, ["d"]), 1, "p") is None


def test_a_card_of_before_knows_nothing() -> None:
    found = seen_among(None, ["a"])
    assert found == {"fit": None, "select": None, "calibration": None}
    assert seen_warning(found, 1, "p") is None


def test_a_large_set_is_known_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "MOST_ROWS", 3)
    texts = ["a", "b", "c", "d"]
    card = SeenRows(fit=row_set(texts))
    assert card.fit is not None
    assert card.fit.rows is None
    assert seen_among(card, [*reversed(texts), "a"])["fit"] == 5
    # Some of them, or others: nobody can tell.
    assert seen_among(card, texts[:3])["fit"] is None


def test_the_text_is_of_all_turns_and_the_response() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert text_of(turns, "c") == "a\nb\nc"
    assert text_of(turns[:1], None) == "a"
