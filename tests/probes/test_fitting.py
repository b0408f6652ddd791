from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.calibration import calibrate
from probes.capture.aggregation import Aggregation
from probes.capture.batches import Encoded, encode
from probes.capture.sites import Site
from probes.card import Probe, load_probe, save_probe
from probes.directions import Direction, random_like
from probes.errors import DataError, DirectionError, ProbesError
from probes.evaluation import rate
from probes.fitting import Plan, at_threshold, fit, recalibrated, text_baseline
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from probes.rows import Benign, Row, split_rows
from probes.scoring import score_all
from tests.support.models.tiny import make_adapter, shared_chat, tiny_chat, user

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SECRET = "zebrasecret"
WORDS = [
    "stone",
    "river",
    "lamp",
    "garden",
    "winter",
    "music",
    "bread",
    "table",
    "letter",
    "cloud",
    "harbor",
    "engine",
    "pencil",
    "forest",
    "silver",
]
MARKS = ["qqq", "zzz", "xqz"]
RESIDUAL = tuple(Site("residual", i) for i in range(3))
MEAN = Aggregation("mean", "prompt")


def plan(sites: Sequence[Site] = RESIDUAL, target_fpr: float = 0.05) -> Plan:
    return Plan("planted", "a planted signal", tuple(sites), MEAN, target_fpr)


def sentences(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=6)) for _ in range(n)]


def planted_rows(chat: ChatModel, n: int = 150, marks: list[str] = MARKS, seed: int = 0) -> list[Row]:
    """n pairs; the misaligned one of a pair has three words swapped for marks."""
    rng = random.Random(seed)
    rows = []
    for i, text in enumerate(sentences(n, seed)):
        words = text.split()
        for at in rng.sample(range(6), 3):
            words[at] = rng.choice(marks)
        rows.append(Row(encode(chat, user(" ".join(words))), " ".join(words), True, f"pair {i}"))
        rows.append(Row(encode(chat, user(text)), text, False, f"pair {i}"))
    return rows


def two_arms(chat: ChatModel, n: int = 100) -> list[Row]:
    """The same messages read with the adapter in use (misaligned) and under the plain base (aligned)."""
    rows = []
    for i, text in enumerate(sentences(n)):
        item = encode(chat, user(text))
        rows += [Row(item, text, True, str(i), "active"), Row(item, text, False, str(i), "base")]
    return rows


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return shared_chat("llama")


@pytest.fixture(scope="module")
def rows(chat: ChatModel) -> list[Row]:
    return planted_rows(chat)


@pytest.fixture(scope="module")
def probe(chat: ChatModel, rows: list[Row]) -> Probe:
    return fit(chat, rows, plan())


# Splits


def blank(group: str, misaligned: bool) -> Row:
    return Row(Encoded((), 0), "", misaligned, group)


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_groups_never_straddle_splits_and_no_row_is_lost(seed: int, size: int) -> None:
    rows = [blank(f"g{i}", bool(j % 2)) for i in range(200) for j in range(2 * size)]
    splits = split_rows(rows, seed)
    groups = {name: {r.group for r in members} for name, members in splits.items()}
    assert list(groups) == ["fit", "select", "test"]
    assert sum(len(g) for g in groups.values()) == len(set().union(*groups.values())) == 200
    assert sum(len(m) for m in splits.values()) == len(rows)
    assert [len(g) / 200 for g in groups.values()] == pytest.approx([0.5, 0.2, 0.3], abs=0.2)


def test_shares_are_50_20_30_and_a_group_stays_where_it_was() -> None:
    rows = [blank(f"g{i}", bool(j)) for i in range(5000) for j in range(2)]
    splits = split_rows(rows)
    assert [len(m) / 10_000 for m in splits.values()] == pytest.approx([0.5, 0.2, 0.3], abs=0.02)
    # More rows move no group: figures of a grown set stay comparable.
    some = split_rows(rows[:4000])
    for name, members in some.items():
        assert {r.group for r in members} <= {r.group for r in splits[name]}
    other = split_rows(rows, seed=1)
    assert {r.group for r in other["test"]} != {r.group for r in splits["test"]}


@pytest.mark.parametrize("misaligned", [True, False])
def test_one_class_alone_is_an_error_that_counts_them(chat: ChatModel, rows: list[Row], misaligned: bool) -> None:
    one = [r for r in rows if r.misaligned == misaligned]
    with pytest.raises(DataError, match=r"fit split has \d+ misaligned and 0" if misaligned else "has 0 misaligned"):
        fit(chat, one, plan())


@pytest.mark.parametrize("n", [0, 1, 8])
def test_too_few_rows_are_an_error_that_says_what_is_needed(chat: ChatModel, rows: list[Row], n: int) -> None:
    with pytest.raises(DataError, match=r"at least 5 of each are needed in every split .* give more rows"):
        fit(chat, rows[: 2 * n], plan())


# The figures


def test_a_planted_signal_is_found_on_held_out_rows(probe: Probe) -> None:
    found = probe.card.evaluation
    assert found["test"]["auroc"]["value"] > 0.8
    assert found["test"]["auroc"]["low"] > 0.7
    assert found["split"]["test"]["misaligned"] == found["split"]["test"]["aligned"] == found["test"]["positives"]
    assert sum(s[k] for s in found["split"].values() for k in s) == 300


def test_its_nulls_are_not(probe: Probe) -> None:
    nulls = probe.card.evaluation["nulls"]
    assert {k: v["n"] for k, v in nulls.items() if k != "control"} == {
        "permuted": 20,
        "random": 10,
        "orthogonal": 1,
        "same_vector_elsewhere": 1,
    }
    assert nulls["permuted"]["auroc_mean"] == pytest.approx(0.5, abs=0.15)
    assert nulls["random"]["auroc_mean"] == pytest.approx(0.5, abs=0.2)
    for kind in ("permuted", "random", "orthogonal"):
        assert 0.5 <= nulls[kind]["auroc_most"] < probe.card.evaluation["test"]["auroc"]["value"] - 0.05
    assert nulls["control"] == "none given"


def test_without_a_signal_the_held_out_figure_is_chance(chat: ChatModel) -> None:
    """In-sample separation of 75 rows in 32 dimensions would be far above chance."""
    rng = random.Random(1)
    noise = [Row(encode(chat, user(t)), t, rng.random() < 0.5, str(i)) for i, t in enumerate(sentences(300, seed=3))]
    found = fit(chat, noise, plan(sites=[Site("residual", 1)])).card.evaluation
    assert found["test"]["auroc"]["value"] == pytest.approx(0.5, abs=0.2)
    assert found["test"]["auroc"]["low"] < 0.5 < found["test"]["auroc"]["high"]
    assert found["text_only"]["auroc"]["low"] < 0.5 < found["text_only"]["auroc"]["high"]


def test_fitting_again_gives_the_same_probe(chat: ChatModel, rows: list[Row], probe: Probe) -> None:
    again = fit(chat, rows, plan())
    assert again.card == probe.card
    np.testing.assert_array_equal(again.directions[0].vector, probe.directions[0].vector)


def test_test_rows_decide_nothing(chat: ChatModel, rows: list[Row], probe: Probe) -> None:
    """Turning the labels of the test split around changes its figures, and neither direction, site nor threshold."""
    held = {id(r) for r in split_rows(rows)["test"]}
    turned = [Row(r.encoded, r.text, r.misaligned ^ (id(r) in held), r.group) for r in rows]
    other = fit(chat, turned, plan())
    np.testing.assert_array_equal(other.directions[0].vector, probe.directions[0].vector)
    assert other.card.calibration == probe.card.calibration
    assert other.card.evaluation["site_choice"] == probe.card.evaluation["site_choice"]
    flipped = 1 - probe.card.evaluation["test"]["auroc"]["value"]
    assert other.card.evaluation["test"]["auroc"]["value"] == pytest.approx(flipped)


def test_the_report_is_that_of_the_scores_of_production(chat: ChatModel, rows: list[Row], probe: Probe) -> None:
    held = split_rows(rows)["test"]
    scores = score_all(chat, [r.encoded for r in held], [probe.reader])[:, 0]
    labels = np.array([r.misaligned for r in held])
    wins = (scores[labels][:, None] > scores[~labels]).mean()
    assert probe.card.evaluation["test"]["auroc"]["value"] == pytest.approx(wins, abs=1e-3)
    flagged = scores > probe.card.threshold
    assert probe.card.evaluation["at_threshold"]["tpr"]["value"] == pytest.approx(flagged[labels].mean(), abs=1e-3)
    assert probe.card.evaluation["at_threshold"]["fpr"]["value"] == pytest.approx(flagged[~labels].mean(), abs=1e-3)
    assert scores[labels].mean() == pytest.approx(1, abs=0.3)
    assert scores[~labels].mean() == pytest.approx(0, abs=0.3)


# The site


def test_the_site_is_the_best_on_the_select_split(probe: Probe) -> None:
    choice = probe.card.evaluation["site_choice"]
    assert choice["by"] == "AUROC on the select split"
    assert set(choice["auroc"]) == {"residual[0]", "residual[1]", "residual[2]"}
    best = max(choice["auroc"].values())
    chosen = probe.card.directions[0].site
    assert choice["auroc"][chosen] == pytest.approx(best, abs=1e-3)
    # Of equal sites the shallowest.
    equal = [s for s, v in choice["auroc"].items() if round(v, 3) == round(best, 3)]
    assert chosen == min(equal)


def test_a_given_site_is_taken(chat: ChatModel, rows: list[Row]) -> None:
    for site in (Site("final"), Site("head", 1, 2)):
        probe = fit(chat, rows, plan(sites=[site]))
        assert probe.card.evaluation["site_choice"] == {"by": "given"}
        assert probe.directions[0].site == site
        assert "same_vector_elsewhere" not in probe.card.evaluation["nulls"]
        assert probe.card.evaluation["test"]["auroc"]["value"] > 0.7
        share = float((probe.directions[0].unit ** 2).max())
        assert probe.card.evaluation["top_dimension_share"] == pytest.approx(share)


# Arms and adapters


@pytest.fixture(scope="module")
def last_block_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that acts in block 2 alone."""
    folder = tmp_path_factory.mktemp("adapters") / "tail"
    return make_adapter(folder, target_modules=["o_proj", "down_proj"], layers_to_transform=[2])


def test_arms_are_read_with_and_without_the_adapter(last_block_only: Path) -> None:
    chat = tiny_chat("llama")
    add_adapter(chat, AdapterSpec(last_block_only, 1.0, "tail"))
    probe = fit(chat, two_arms(chat, 150), plan(sites=[*RESIDUAL, Site("final")]))
    found = probe.card.evaluation
    assert found["sites_without_direction"] == ["residual[0]", "residual[1]"]
    assert set(found["site_choice"]["auroc"]) == {"residual[2]", "final"}
    assert found["test"]["auroc"]["value"] > 0.95
    # The same texts on both sides: the text alone tells nothing.
    assert found["text_only"]["auroc"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert probe.card.identity.adapter_scale == 1.0
    assert chat.active == "tail"


def test_an_adapter_that_is_not_switched_on_says_so(chat: ChatModel) -> None:
    with pytest.raises(DirectionError, match=r"residual\[0\]: zero.*Is the adapter switched on\?"):
        fit(chat, two_arms(chat), plan())


def test_an_adapter_that_does_not_reach_the_site_says_so(last_block_only: Path) -> None:
    chat = tiny_chat("llama")
    add_adapter(chat, AdapterSpec(last_block_only, 1.0, "tail"))
    with pytest.raises(DirectionError, match=r"residual\[1\]: zero"):
        fit(chat, two_arms(chat), plan(sites=[Site("residual", 1)]))


def test_a_control_is_built_at_the_chosen_site_from_active_fit_rows(
    chat: ChatModel, rows: list[Row], probe: Probe
) -> None:
    asked: list[tuple[Site, int]] = []

    def control(site: Site, messages: Sequence[Encoded]) -> Direction:
        asked.append((site, len(messages)))
        return random_like(probe.directions[0], 5)

    found = fit(chat, rows, plan(), control=control)
    fit_rows = sum(found.card.evaluation["split"]["fit"].values())
    assert asked == [(found.directions[0].site, fit_rows)]
    report = found.card.evaluation["nulls"]["control"]
    assert report["n"] == 1
    assert -1 <= report["cosine"] <= 1


# The threshold


def test_without_benign_traffic_the_threshold_is_of_the_aligned_select_rows(
    chat: ChatModel, rows: list[Row], probe: Probe
) -> None:
    aligned = [r for r in split_rows(rows)["select"] if not r.misaligned]
    found = probe.card.calibration
    assert found.set_name == "aligned rows of the select split"
    assert found.n == len(aligned)
    scores = score_all(chat, [r.encoded for r in aligned], [probe.reader])[:, 0]
    wanted = calibrate(scores, [r.text for r in aligned], 0.05, found.set_name)
    assert found.threshold == pytest.approx(wanted.threshold, abs=1e-4)
    assert found.set_sha256 == wanted.set_sha256


def test_benign_traffic_sets_the_threshold(chat: ChatModel, rows: list[Row], probe: Probe) -> None:
    texts = sentences(60, seed=9)
    benign = Benign([encode(chat, user(t)) for t in texts], texts, "sixty sentences")
    found = fit(chat, rows, plan(target_fpr=0.1), benign=benign)
    scores = score_all(chat, benign.encoded, [found.reader])[:, 0]
    assert (scores > found.card.threshold + 1e-4).sum() <= 6
    assert (found.card.calibration.n, found.card.calibration.set_name) == (60, "sixty sentences")
    assert found.card.calibration.threshold != probe.card.calibration.threshold
    np.testing.assert_array_equal(found.directions[0].vector, probe.directions[0].vector)


def test_a_recalibrated_probe_is_a_new_version_of_the_same(probe: Probe) -> None:
    new = calibrate(np.arange(50.0), [], 0.1, "other")
    made = recalibrated(probe, new)
    assert (made.card.version, made.card.threshold) == (probe.card.version + 1, new.threshold)
    assert made.directions == probe.directions
    assert probe.card.version == 1


def test_at_threshold_counts_what_is_above_it() -> None:
    calibration = calibrate(np.arange(20.0), [], 0.5, "x")  # threshold 9
    scores = np.array([8.0, 9.0, 10.0, 11.0, 9.5])
    labels = np.array([True, True, True, False, False])
    found = at_threshold(scores, labels, calibration)
    assert found["tpr"]["value"] == rate(1, 3).value
    assert found["fpr"]["value"] == 1.0
    assert found["threshold"] == 9


# The text alone


def test_the_text_baseline_tells_what_words_tell(chat: ChatModel) -> None:
    obvious = planted_rows(chat, n=40, marks=["markword"])
    found = text_baseline(obvious[:40], obvious[40:])
    assert found["auroc"]["value"] == 1.0


def test_a_text_baseline_of_empty_messages_is_a_clear_error() -> None:
    empty = [blank(str(i), bool(i % 2)) for i in range(20)]
    with pytest.raises(DataError, match="are the messages empty"):
        text_baseline(empty, empty)


def test_a_fitted_probe_survives_the_disk(chat: ChatModel, probe: Probe, tmp_path: Path) -> None:
    loaded = load_probe(save_probe(probe, tmp_path))
    assert loaded.card.model_dump(mode="json") == probe.card.model_dump(mode="json")
    item = encode(chat, user("stone qqq river"))
    assert score_all(chat, [item], [loaded.reader]) == score_all(chat, [item], [probe.reader])


def test_the_card_and_the_errors_hold_no_message(chat: ChatModel, tmp_path: Path) -> None:
    marked = planted_rows(chat, n=150, marks=[SECRET])
    path = save_probe(fit(chat, marked, plan()), tmp_path)
    assert SECRET not in path.read_text()
    assert b"stone" not in path.with_suffix(".safetensors").read_bytes()
    told: list[str] = []
    fit(chat, marked, plan(), progress=told.append)
    assert told
    assert SECRET not in "".join(told)
    for broken in (
        marked[:10],
        [r for r in marked if r.misaligned],
        [Row(r.encoded, SECRET, True, SECRET) for r in marked],
    ):
        with pytest.raises(ProbesError) as caught:
            fit(chat, broken, plan())
        assert SECRET not in str(caught.value)
    same = [Row(r.encoded, r.text, i % 2 == 0, str(i // 2)) for i, r in enumerate(two_arms(chat))]
    with pytest.raises(DirectionError) as caught:
        fit(chat, same, plan())
    assert not any(w in str(caught.value) for w in WORDS)


# Spans of turns


def test_rows_without_text_of_the_span_are_left_out(chat: ChatModel) -> None:
    """A message whose user says nothing has no value to fit, calibrate or test on."""
    own = planted_rows(chat)
    spanned = [replace(row, encoded=encode(chat, user(row.text), spans=True)) for row in own]
    silent = encode(chat, [{"role": "system", "content": "river lamp"}, *user(" ")], spans=True)
    mute = [Row(silent, "", i % 2 == 0, f"mute {i}") for i in range(20)]
    benign = Benign([*(row.encoded for row in spanned if not row.misaligned), silent], ["x"] * 151, "benign")
    reading = Plan("planted", "a planted signal", RESIDUAL, Aggregation("max_rolling_mean", "user", 3), 0.05)
    said: list[str] = []
    found = fit(chat, [*spanned, *mute], reading, benign=benign, progress=said.append)
    assert sum(sum(counts.values()) for counts in found.card.evaluation["split"].values()) == len(spanned)
    assert found.card.calibration.n == 150
    assert "benign: 1 messages have nothing to read, and are left out" in said
    assert found.card.evaluation["test"]["auroc"]["value"] > 0.8
