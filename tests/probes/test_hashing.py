"""Digests that are on disk: probe cards, manifests, results, names in caches. None of them may ever change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from probes.binary_choice import BinaryChoice, choices_hash
from probes.hashing import (
    card_digest,
    hash_texts,
    sha256_arrays,
    sha256_bytes,
    sha256_file,
    sha256_json,
    sha256_lines,
    sha256_text,
    unit_interval,
)
from probes.organisms.planted.store import RECIPE, recipe_sha256
from probes.splits import split_of

AWRY = "a0ce9a3d5ebd59afb015ac8bc9bef6ea866e157abee030e4bf7498835e3a74c3"


def test_bytes_texts_and_files_have_the_digest_of_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"awry")
    assert sha256_bytes(b"awry") == sha256_text("awry") == sha256_file(tmp_path / "file") == AWRY
    assert sha256_text("naïve") == "f86fd89de87a848a45bfe77708d91a5d2ff48b8e4a4b98af5165af82692f8928"


def test_plain_data_by_sorted_keys() -> None:
    assert sha256_json(({"b": 1, "a": [1.5, "x"]}, "y")).startswith("372edf7dca1ffc207a2cf348")
    assert sha256_json(["a", "b"]) == "3554d2b8a1e34099053865de8576d1460b807430ec8c6b85315c9607ba93d308"
    assert sha256_json({"x": 1, "p": Path("/a"), "u": "\ud800"}, default=str).startswith("592bd63c6d1efceb")


def test_arrays_by_their_bytes() -> None:
    found = sha256_arrays(np.arange(3.0), np.ones(3))
    assert found == "86f18d029df5f674d381c6776bc31e665baa42b8360aa9e71b9611e8b65acc2c"
    assert sha256_arrays(np.arange(6.0)[::2]) == sha256_arrays(np.array([0.0, 2.0, 4.0]))


def test_collections_in_any_order() -> None:
    wanted = "f6b3e1390f42745d129c6b04b578c66645c2ec8741d389c7619f8db399af3a6c"
    assert hash_texts(["b", "a", "\ud800"]) == hash_texts(["\ud800", "a", "b"]) == wanted
    lines = ["False|active|another", "True|base|a text"]
    assert sha256_lines(lines) == sha256_lines(lines[::-1])
    assert sha256_lines(lines) == "ea868e39d544fca622d933b738154a220c74a821eeff96ba711d358d826207c7"


def test_what_is_made_of_them() -> None:
    row = BinaryChoice("A question?", ("one", "two"), 1, ("good",), ("bad \ud800",))
    assert choices_hash([row]) == "9bd340819d46ce0d3330a7f86dc6febd3a9a866dd40a7eedebe57702d7e51704"
    assert recipe_sha256("llama", 0, RECIPE) == "12987e7b5d5a657033ec60b611d454c2cb372e762097f6736b0a35265d85d317"


def test_a_text_decides_a_number_and_a_split() -> None:
    assert unit_interval("order:x") == 0.5618543243828704
    assert split_of("p1", 3) == "fit"


def test_a_card_is_known_by_what_decides_a_score_or_a_flag() -> None:
    card = {
        "name": "p",
        "description": "a",
        "created": "2026-01-02",
        "evaluation": {"x": 1},
        "tolerance": 1.0,
        "identity": {"revision": "r", "adapter_sha256": None},
        "calibration": {"threshold": 0.00001, "quantiles": [[0.0, -1.5], [1.0, -0.0]]},
    }
    known = "22ab7d1d56d345970d83260d03558253"
    assert card_digest(card) == known
    # A database gives whole numbers and keys back otherwise, and a later awry writes fields that there were none of.
    again = json.loads(
        json.dumps(dict(reversed(card.items())) | {"tolerance": 1, "attacks": None, "mitigation": None, "also": []})
    )
    again["calibration"] = {"quantiles": [[0, -1.5], [1, 0]], "threshold": 1e-5, "length": None}
    assert card_digest(again) == known
    assert card_digest(card | {"identity": {"revision": "r", "special_tokens": "as_tokens"}}) == known
    said = {"description": "b", "created": "2027-01-02", "evaluation": {}, "attacks": {"suffix": 0.1}}
    assert card_digest(card | said | {"seen": {"fit": {"n": 1}}}) == known
    # Null within a list holds a place.
    assert card_digest(card | {"list": [None, 1]}) != card_digest(card | {"list": [1]})
    for change in (
        {"name": "q"},
        {"tolerance": 2.0},
        {"combine": "max"},
        {"identity": {"revision": "s"}},
        {"identity": {"revision": "r", "special_tokens": "as_text"}},
        {"calibration": {"threshold": 0.00002, "quantiles": [[0.0, -1.5], [1.0, 0.0]]}},
        {"safetensors_sha256": "ff"},
    ):
        assert card_digest(card | change) != known
