"""docs/destinations.md: its examples are settings that can be read, and its table is the options that there are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from alerts.destinations import _ALWAYS, _OPTIONS, KINDS, Destination
from alerts.lifecycle.enqueue import message_reference
from alerts.rules.flagged import evidence
from monitor.settings import load_settings
from storage.coordinates import Coordinates
from tests.support import ROOT

TEXT = (ROOT / "docs" / "destinations.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


def test_the_examples_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "awry.toml"
    path.write_text("\n".join(EXAMPLES))
    # A file that nobody names may not write elsewhere.
    monkeypatch.setenv("AWRY_CONFIG", str(path))
    found = load_settings().destinations
    assert {one.kind for one in found} | {"console"} == set(KINDS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_stands_alone(example: str) -> None:
    tables: list[dict[str, Any]] = tomllib.loads(example)["destinations"]
    assert all(Destination(**table) for table in tables)


def test_every_option_is_in_the_table_or_an_example() -> None:
    options = {name for needed, known in _OPTIONS.values() for name in needed | known} | _ALWAYS
    assert options == set(Destination.model_fields)
    said = set(re.findall(r"^\| `(\w+)`", TEXT, re.MULTILINE)) | set(
        re.findall(r"^(\w+) = ", "\n".join(EXAMPLES), re.M)
    )
    assert options <= said | {"format"}
    assert said <= options


def test_the_body_on_the_page_is_what_is_sent() -> None:
    (page,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    written = json.loads(page)
    assert set(written) == {"type", "timestamp", "data"}
    # As it is sent of a message whose reading and turn are known.
    top = message_reference(Coordinates("llm.traffic", 3, 1204), "m-1204", 1.23, evidence("base64", 2, turn_new=True))
    assert written["data"]["top_message"] == top
