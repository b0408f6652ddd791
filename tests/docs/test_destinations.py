"""docs/destinations.md: its examples are settings that can be read, and its table is the options that there are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from alerts.destinations import _ALWAYS, _OPTIONS, KINDS, Destination
from monitor.settings import load_settings
from tests.support import ROOT

TEXT = (ROOT / "docs" / "destinations.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


def test_the_examples_are_settings(tmp_path: Path) -> None:
    Path("awry.toml").write_text("\n".join(EXAMPLES))
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


def test_the_page_is_json() -> None:
    (page,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert set(json.loads(page)) == {"type", "timestamp", "data"}
