from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from probes.calibration import calibrate
from probes.capture.aggregation import parse_aggregation
from probes.capture.batches import encode
from probes.capture.sites import Site
from probes.card import (
    Card,
    DirectionCard,
    MitigationCard,
    MitigationSite,
    Probe,
    load_probe,
    save_probe,
    shipped_probes,
)
from probes.directions import Direction
from probes.errors import ProbeFileError, ProbeMismatchError
from probes.hashing import card_digest, sha256_file
from probes.identity import TOLERANCE, check_identity, reference_scores, replay_references
from probes.model.load import AdapterSpec, ChatModel, add_adapter
from probes.scoring import Reader, score_all
from probes.steer.steering import Intervention
from tests.support.models.tiny import make_adapter, shared_chat, tiny_chat, untyped, user

SECRET = "zebra-secret-prompt"


AT = Site("residual", 1)


def direction(site: Site = AT, seed: int = 0) -> Direction:
    rng = np.random.default_rng(seed)
    width = 12 if site.kind == "head" else 32
    return Direction(site, rng.standard_normal(width), rng.standard_normal(width), 0.75)


def make_probe(
    chat: ChatModel,
    directions: list[Direction] | None = None,
    aggregation: str = "mean(prompt)",
    mitigated: bool = False,
) -> Probe:
    directions = directions or [direction()]
    mitigators = [direction(Site("residual", 2), 7)] if mitigated else []
    recipe = MitigationCard(
        site="residual[2]",
        mode="ablate",
        strength=0.9,
        positions="last",
        sigma=0.75,
        cosine_to_detector=None,
        measured={"coherent": 0.98},
    )
    card = Card(
        name="my-probe",
        version=3,
        created="2026-01-02",
        description="made in a test",
        identity=chat.identity,
        aggregation=aggregation,
        directions=[DirectionCard(site=str(d.site), norm=d.norm, sigma=d.sigma) for d in directions],
        safetensors_sha256="",
        calibration=calibrate(np.linspace(0, 1, 40), [SECRET], 0.1, "benign"),
        evaluation={"test": {"auroc": {"value": 0.9}}},
        references=reference_scores(chat, Reader(tuple(directions), parse_aggregation(aggregation))),
        tolerance=TOLERANCE,
        mitigation=recipe if mitigated else None,
    )
    return Probe(card, directions, mitigators)


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return shared_chat("llama")


@pytest.fixture
def path(chat: ChatModel, tmp_path: Path) -> Path:
    return save_probe(make_probe(chat), tmp_path)


def edit(path: Path, **fields: object) -> None:
    card = json.loads(path.read_text())
    card.update(fields)
    path.write_text(json.dumps(card))


@pytest.mark.parametrize("mitigated", [False, True])
@pytest.mark.parametrize(
    "aggregation", ["last_prompt", "mean(response)", "max_rolling_mean(5, prompt)", "ema_max(0.1, response)"]
)
def test_a_round_trip_is_exact(chat: ChatModel, tmp_path: Path, aggregation: str, mitigated: bool) -> None:
    directions = [direction(Site("head", 1, 2), 1), direction(Site("head", 0, 3), 2)]
    made = make_probe(chat, directions, aggregation, mitigated)
    path = save_probe(made, tmp_path / "new" / "folder")
    assert path.name == "my-probe.json"
    for name in (path, path.with_suffix(".safetensors"), str(path)):
        loaded = load_probe(name)
        assert loaded.card == made.card
        assert loaded.aggregation == made.aggregation
        assert loaded.name == "my-probe"
        for a, b in zip(loaded.directions, made.directions, strict=True):
            assert a.site == b.site
            assert a.sigma == b.sigma
            np.testing.assert_array_equal(a.vector, b.vector)
            np.testing.assert_array_equal(a.centre, b.centre)
            assert a.vector.dtype == np.float64
        item = encode(chat, user("Hello"), "There")
        assert score_all(chat, [item], [loaded.reader]) == score_all(chat, [item], [made.reader])
    if mitigated:
        (mitigator,) = loaded.mitigators
        np.testing.assert_array_equal(mitigator.vector, made.mitigators[0].vector)
        assert loaded.interventions == (Intervention(mitigator, "ablate", 0.9, "last"),)
    else:
        assert loaded.interventions == ()


def test_a_recipe_of_several_heads_comes_back_whole_and_in_order(chat: ChatModel, tmp_path: Path) -> None:
    made = make_probe(chat, mitigated=True)
    heads = [direction(Site("head", 1, 2), 1), direction(Site("head", 0, 3), 2), direction(Site("head", 1, 0), 3)]
    pairs = zip(heads[1:], (-3, 4), strict=True)
    further = [MitigationSite(site=str(d.site), strength=s, sigma=0.75) for d, s in pairs]
    recipe = MitigationCard(
        site="head[1,2]", mode="add", strength=-2.0, positions="last", sigma=0.75, cosine_to_detector=None, also=further
    )
    made = Probe(made.card.model_copy(update={"mitigation": recipe}), made.directions, heads)
    loaded = load_probe(save_probe(made, tmp_path))
    assert [(str(i.direction.site), i.mode, i.strength, i.positions) for i in loaded.interventions] == [
        ("head[1,2]", "add", -2.0, "last"),
        ("head[0,3]", "add", -3.0, "last"),
        ("head[1,0]", "add", 4.0, "last"),
    ]
    for intervention, head in zip(loaded.interventions, heads, strict=True):
        np.testing.assert_array_equal(intervention.direction.vector, head.vector)


def test_a_recipe_whose_further_head_is_missing_is_refused_whole(chat: ChatModel, tmp_path: Path) -> None:
    made = make_probe(chat, mitigated=True)
    path = save_probe(made, tmp_path)
    card = json.loads(path.read_text())
    card["mitigation"]["also"] = [{"site": "head[0,3]", "strength": 1.0, "sigma": 1.0}]
    path.write_text(json.dumps(card))
    with pytest.raises(ProbeFileError, match="does not hold what its card says"):
        load_probe(path)


def test_a_card_from_before_recipes_of_several_sites_still_loads(chat: ChatModel, tmp_path: Path) -> None:
    path = save_probe(make_probe(chat, mitigated=True), tmp_path)
    card = json.loads(path.read_text())
    del card["mitigation"]["also"]
    path.write_text(json.dumps(card))
    assert set(load_file(path.with_suffix(".safetensors"))) >= {"mitigation.vector", "mitigation.centre"}
    (only,) = load_probe(path).interventions
    assert (only.direction.site, only.mode, only.strength) == (Site("residual", 2), "ablate", 0.9)


def test_what_is_on_disk(path: Path) -> None:
    assert sorted(p.name for p in path.parent.iterdir()) == ["my-probe.json", "my-probe.safetensors"]
    assert set(load_file(path.with_suffix(".safetensors"))) == {"vector.0", "centre.0"}
    card = json.loads(path.read_text())
    assert card["format"] == "awry-probe/1"
    assert SECRET not in path.read_text()
    assert path.read_text().endswith("}\n")


def test_saving_again_gives_the_same_bytes(chat: ChatModel, tmp_path: Path) -> None:
    a, b = (save_probe(make_probe(chat), tmp_path / name) for name in "ab")
    assert a.read_bytes() == b.read_bytes()
    assert a.with_suffix(".safetensors").read_bytes() == b.with_suffix(".safetensors").read_bytes()


def test_a_tampered_tensor_file_is_refused(path: Path) -> None:
    weights = path.with_suffix(".safetensors")
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(ProbeFileError, match=r"my-probe\.safetensors is not the file that its card was written for"):
        load_probe(path)


def test_a_missing_file_is_named(path: Path, tmp_path: Path) -> None:
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(ProbeFileError, match=r"my-probe\.safetensors is missing beside its card"):
        load_probe(path)
    with pytest.raises(ProbeFileError, match=r"nothing\.json is not there"):
        load_probe(tmp_path / "nothing.safetensors")
    with pytest.raises(ProbeFileError, match="'no-such-probe' is not known; shipped are"):
        load_probe("no-such-probe")


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\x00", "[" * 100_000])
def test_a_card_that_is_no_card_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ProbeFileError, match=r"my-probe\.json"):
        load_probe(path)


def test_a_card_that_is_not_utf_8_is_refused(path: Path) -> None:
    path.write_bytes(b'{"name": "\xff"}')
    with pytest.raises(ProbeFileError, match=r"my-probe\.json"):
        load_probe(path)


@pytest.mark.parametrize("where", ["", "identity", "calibration", "directions", "references"])
def test_an_unknown_field_is_refused_wherever_it_is(path: Path, where: str) -> None:
    card = json.loads(path.read_text())
    part = card[where] if where else card
    (part[0] if isinstance(part, list) else part)["surprise"] = 1
    path.write_text(json.dumps(card))
    with pytest.raises(ProbeFileError, match="surprise"):
        load_probe(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "awry-probe/2"),
        ("name", "../up"),
        ("name", "Upper"),
        ("version", 0),
        ("tolerance", 0),
        ("directions", []),
        ("calibration", None),
        ("references", [{"score": 1}]),
    ],
)
def test_a_field_that_cannot_be_is_named(path: Path, field: str, value: object) -> None:
    edit(path, **{field: value})
    with pytest.raises(ProbeFileError, match=f"field {field}"):
        load_probe(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("aggregation", "median(prompt)"),
        ("directions", [{"site": "nowhere", "norm": 1.0, "sigma": 1.0}]),
        ("directions", [{"site": "residual[1]", "norm": 1.0, "sigma": 1.0}] * 2),
    ],
    ids=["aggregation", "site", "more directions than tensors"],
)
def test_a_card_that_does_not_match_its_tensors_is_refused(
    path: Path, field: str, value: list[dict[str, Any]] | str
) -> None:
    edit(path, **{field: value})
    with pytest.raises(ProbeFileError, match="does not hold what its card says"):
        load_probe(path)


def test_a_zero_vector_on_disk_is_refused(path: Path) -> None:
    weights = path.with_suffix(".safetensors")
    tensors = load_file(weights)
    save_file(tensors | {"vector.0": np.zeros(32)}, weights)
    edit(path, safetensors_sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.raises(ProbeFileError, match="zero"):
        load_probe(path)


def test_a_folder_that_cannot_be_written_is_a_clear_error(chat: ChatModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProbeFileError, match=r"cannot write to .* choose another --out"):
        save_probe(make_probe(chat), tmp_path / "file")


def test_shipped_probes_load() -> None:
    for name in shipped_probes():
        assert load_probe(name).name == name


# Whose probe it is


def test_the_model_that_it_was_made_on_is_accepted(chat: ChatModel) -> None:
    check_identity(make_probe(chat).card, tiny_chat("llama"))


def other_revision(_: Path | None) -> ChatModel:
    return tiny_chat("llama", seed=1)


def other_tokenizer(_: Path | None) -> ChatModel:
    chat = tiny_chat("llama")
    chat.tokenizer.add_tokens(["dragon"])
    return chat


def other_template(_: Path | None) -> ChatModel:
    chat = tiny_chat("llama")
    chat.tokenizer.chat_template += "\n"
    return chat


def with_adapter(folder: Path, scale: float = 1.0) -> ChatModel:
    chat = tiny_chat("llama")
    add_adapter(chat, AdapterSpec(folder, scale, "a"))
    return chat


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("revision", other_revision),
        ("adapter_sha256", with_adapter),
        ("tokenizer_sha256", other_tokenizer),
        ("template_sha256", other_template),
    ],
)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_each_difference_is_named(
    chat: ChatModel, tmp_path: Path, field: str, make: Callable[[Path | None], ChatModel]
) -> None:
    other = make(make_adapter(tmp_path / "a") if field.startswith("adapter") else None)
    for made, here in ((chat, other), (other, chat)):
        with pytest.raises(ProbeMismatchError, match=f"probe my-probe: {field} is .*, the worker has .*; "):
            check_identity(make_probe(made).card, here)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_another_adapter_and_another_scale_are_named(tmp_path: Path) -> None:
    first, second = (make_adapter(tmp_path / n, seed) for seed, n in enumerate("ab", 1))
    card = make_probe(with_adapter(first)).card
    check_identity(card, with_adapter(first))
    with pytest.raises(ProbeMismatchError, match="adapter_sha256"):
        check_identity(card, with_adapter(second))
    with pytest.raises(ProbeMismatchError, match=r"adapter_scale is 1\.0, the worker has 0\.5.*--scale"):
        check_identity(card, with_adapter(first, 0.5))
    adapted = with_adapter(first)
    with adapted.base(), pytest.raises(ProbeMismatchError, match=r"adapter_sha256 is .* the worker has none"):
        check_identity(card, adapted)


# The numeric stack


@pytest.mark.parametrize("aggregation", ["last_prompt", "mean(response)", "ema_max(0.1, response)"])
def test_references_replay_on_the_same_model(chat: ChatModel, tmp_path: Path, aggregation: str) -> None:
    probe = load_probe(save_probe(make_probe(chat, aggregation=aggregation), tmp_path))
    assert len(probe.card.references) >= 3
    assert len({r.score for r in probe.card.references}) == len(probe.card.references)
    assert all((r.response is not None) == ("response" in aggregation) for r in probe.card.references)
    assert replay_references(probe, tiny_chat("llama")) < 1e-4


def test_a_perturbed_model_is_refused(chat: ChatModel) -> None:
    probe = make_probe(chat)
    other = tiny_chat("llama")
    with torch.no_grad():
        untyped(other.layout.heads_at(1).projection).weight.mul_(1.5)
    check_identity(probe.card, other)  # what it says of itself is the same
    with pytest.raises(ProbeMismatchError, match=r"reference scores differ by 0\.\d+, the card allows 0\.01"):
        replay_references(probe, other)


def test_the_tolerance_is_the_cards(chat: ChatModel) -> None:
    probe = make_probe(chat)
    other = tiny_chat("llama")
    with torch.no_grad():
        untyped(other.layout.heads_at(1).projection).weight.mul_(1.5)
    probe.card = probe.card.model_copy(update={"tolerance": 100.0})
    assert 0.01 < replay_references(probe, other) < 100


def test_a_coarse_dtype_is_refused_by_its_scores_and_named(chat: ChatModel) -> None:
    probe = make_probe(chat, [direction(seed=3).with_vector(0.05 * direction(seed=3).vector)])
    with pytest.raises(ProbeMismatchError, match="made with float32/sdpa, here bfloat16/sdpa"):
        replay_references(probe, tiny_chat("llama", dtype=torch.bfloat16))


def test_scores_that_are_not_finite_are_refused(chat: ChatModel) -> None:
    probe = make_probe(chat)
    other = tiny_chat("llama")
    with torch.no_grad():
        untyped(other.layout.heads_at(0).projection).weight.fill_(math.nan)
    with pytest.raises(ProbeMismatchError, match="differ by nan"):
        replay_references(probe, other)


def test_a_card_without_references_is_refused(chat: ChatModel) -> None:
    probe = make_probe(chat)
    probe.card = probe.card.model_copy(update={"references": []})
    with pytest.raises(ProbeFileError, match="no references"):
        replay_references(probe, chat)


def test_a_digest_stays_through_files_and_follows_what_decides_a_score(chat: ChatModel, path: Path) -> None:
    made = make_probe(chat)
    unsaved = made.digest
    save_probe(made, path.parent)
    assert made.digest == load_probe(path).digest != unsaved
    assert len(made.digest) == 32
    # What is only told about a probe, and how its file is written, are not part of it.
    edit(path, description="another", created="2027-01-01", evaluation={})
    loaded = load_probe(path)
    assert loaded.digest == made.digest
    loaded.card = loaded.card.model_copy(update={"tolerance": 0.5})
    assert loaded.digest != made.digest
    changed = loaded.digest
    assert load_probe(save_probe(loaded, path.parent)).digest == loaded.digest == changed
    # The same card over other tensors.
    other = make_probe(chat, [direction(seed=1)])
    other.card = made.card
    save_probe(other, path.parent)
    assert other.digest != made.digest


@pytest.mark.parametrize("name", shipped_probes())
def test_a_shipped_card_that_a_later_awry_writes_again_keeps_its_digest(tmp_path: Path, name: str) -> None:
    """The files are older than some fields of a card."""
    probe = load_probe(name)
    assert load_probe(save_probe(load_probe(name), tmp_path)).digest == probe.digest
    assert card_digest(probe.card.model_dump(mode="json")) == probe.digest


def test_the_digest_is_of_the_file_and_not_of_what_this_awry_reads_from_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_probe(path).digest

    class Later(Card):
        reading: str = "as a later awry has it"

    monkeypatch.setattr("probes.card.Card", Later)
    assert load_probe(path).digest == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, "1e301"])
@pytest.mark.parametrize("field", ["threshold", "tolerance", "version", "norm"])
def test_a_number_that_is_none_is_refused_in_one_line_wherever_it_is(path: Path, field: str, number: str) -> None:
    text = re.sub(rf'("{field}": )[-+.e0-9]+', rf"\g<1>{number}", path.read_text(), count=1)
    path.write_text(text)
    with pytest.raises(ProbeFileError, match="is not finite, or too large") as found:
        load_probe(path)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 200


def test_tensors_of_a_kind_that_cannot_be_read_are_refused_in_one_line(path: Path) -> None:
    import safetensors.torch
    import torch

    weights = path.with_suffix(".safetensors")
    tensors = {name: value.to(torch.bfloat16) for name, value in safetensors.torch.load_file(weights).items()}
    safetensors.torch.save_file(tensors, weights)
    edit(path, safetensors_sha256=sha256_file(weights))
    with pytest.raises(ProbeFileError, match="does not hold what its card says"):
        load_probe(path)
