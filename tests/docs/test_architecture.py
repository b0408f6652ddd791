"""docs/architecture.md and CONTRIBUTING.md name files and rooms that are there, and no room is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT

PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
PACKAGES = ("monitor", "probes", "storage", "alerts")


def named_paths(text: str) -> set[str]:
    """Files and folders (with a slash at their end) in code marks."""
    return set(re.findall(r"`((?:[\w.-]+/)+(?:[\w-]+\.\w+)?|[\w-]+\.(?:py|toml))`", text))


def missing(text: str) -> set[str]:
    """Named paths that are neither there from the root, nor in or beside another that is named."""
    paths = named_paths(text)
    folders = {ROOT / path for path in paths} | {(ROOT / path).parent for path in paths}
    return {path for path in paths if not any((folder / path).exists() for folder in folders | {ROOT})}


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert named_paths(text)
    assert missing(text) == set()


def test_a_path_that_is_not_there_is_seen() -> None:
    assert missing("`alerts/senders/` has `webhook.py`, `pigeon.py` and `alerts/nowhere/`") == {
        "pigeon.py",
        "alerts/nowhere/",
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_is_described(package: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {str(path.parent.relative_to(ROOT)) for path in Path(ROOT / package).glob("*/__init__.py")}
    assert {room for room in rooms if f"`{room}/`" not in text} == set()
