"""Links between the documents lead somewhere, in the repository and on the site that is built from docs/."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT

DOCS = ROOT / "docs"
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("api/*.md"), *DOCS.glob("gateways/*.md")})
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def links(text: str) -> list[str]:
    """Targets inside the repository: of links and pictures, outside code."""
    targets = _LINK.findall(re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text)))
    return [target for target in targets if "://" not in target]


def anchors(text: str) -> set[str]:
    """Anchors of headings on which the forge and the site's generator agree."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    plain = [
        re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)).strip().lower() for title in titles
    ]
    return {re.sub(r"\s", "-", title) for title in plain} & {re.sub(r"[-\s]+", "-", title) for title in plain}


def broken(page: Path, target: str) -> str | None:
    """What is wrong with a link on `page`."""
    path, _, anchor = target.partition("#")
    goal = (page.parent / path).resolve() if path else page
    if not goal.exists():
        return "is not there"
    if anchor and anchor not in anchors(goal.read_text(encoding="utf-8")):
        return "has no such heading"
    if page.is_relative_to(DOCS) and not goal.is_relative_to(DOCS):
        return "is outside docs/, so not on the site"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    found = {target: broken(page, target) for target in links(page.read_text(encoding="utf-8"))}
    assert {target: fault for target, fault in found.items() if fault} == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a](nowhere.md)", "is not there"),
        ("see [a](alerts.md#no-such-heading)", "has no such heading"),
        ("![a](../README.md)", "is outside docs/, so not on the site"),
        ("[a](alerts.md#http-api)", None),
    ],
)
def test_a_broken_link_is_seen(text: str, fault: str | None) -> None:
    (target,) = links(text)
    assert broken(DOCS / "page.md", target) == fault


def test_every_page_is_in_the_menu_of_the_site() -> None:
    menu = set(re.findall(r'= "([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8")))
    assert menu == {str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS)}


@pytest.mark.parametrize("page", sorted((DOCS / "api").glob("*.md")), ids=lambda page: page.name)
def test_modules_of_the_reference_exist(page: Path) -> None:
    modules = re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert modules
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module
