"""Keys that people read, that fit pagers and indexes, and that differ where names do."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from alerts.rules.keys import dedup_key

# Few letters, so that names are alike: what a key is made of, and what would be mistaken for it.
NAMES = st.none() | st.text(alphabet=":%-_~2A3aé😀", max_size=6) | st.text(max_size=300)
LABELS = st.lists(NAMES, max_size=3)


def test_names_without_odd_letters_are_as_they_are() -> None:
    assert dedup_key("threshold", "drift", ["shop", "smol"]) == "threshold:drift:shop:smol"
    assert dedup_key("threshold", "drift", [None, "a-b_c/d.e@2 ü"]) == "threshold:drift:-:a-b_c/d.e@2 ü"
    assert dedup_key("own", None, []) == "own:-"


def test_names_that_were_folded_are_apart() -> None:
    keys = [dedup_key("r", "p", [name]) for name in ("shop:eu", "shop_eu", "shop%3Aeu", "-", None, "%2D")]
    assert keys == ["r:p:shop%3Aeu", "r:p:shop_eu", "r:p:shop%253Aeu", "r:p:%2D", "r:p:-", "r:p:%252D"]


@given(LABELS, LABELS)
@example(["x" * 300], ["x" * 299 + "y"])
@example(["\ud800" * 300], ["\ud801" * 300])
def test_different_names_have_different_keys(some: list[str | None], others: list[str | None]) -> None:
    alike = [name or None for name in some] == [name or None for name in others]
    assert (dedup_key("rule", "probe", some) == dedup_key("rule", "probe", others)) == alike


@given(LABELS)
@example(["😀" * 512, "😀" * 512])
@example(["é" * 240])
def test_a_key_fits_a_pager_and_an_index(labels: list[str | None]) -> None:
    key = dedup_key("threshold", "drift", labels)
    assert len(key) <= 255
    assert len(key.encode("utf-8", "surrogatepass")) <= 1000
    assert key.startswith("threshold:drift")


def test_a_name_cannot_be_written_as_the_short_form_of_another() -> None:
    long = dedup_key("rule", "probe", ["x" * 999])
    assert dedup_key("rule", "probe", [long.removeprefix("rule:probe:")]) != long
