"""What docstrings, comments, messages and documents refer to is there: pages, sections, modules, files, headings.

Every text file that git tracks is read. A finder takes a text and gives the references in it that lead nowhere; each
is tried on planted bad text too. Nothing is imported: names are looked up in the source.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from awry.moved import MOVED
from tests.docs.test_links import PAGES, broken, links
from tests.support import ROOT

PACKAGES = ("monitor", "probes", "storage", "alerts")
SUFFIXES = {".py", ".md", ".toml", ".sh", ".yml", ".yaml", ".json", ".svg", ".html", ".css", ".js", ".txt", ""}
Finder = Callable[[str], set[str]]


@cache
def tracked() -> tuple[Path, ...]:
    """Text files under git, but for the tests in this folder: they hold bad references on purpose."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return tuple(p for p in paths if p.suffix in SUFFIXES and p.is_file() and p.parent != Path(__file__).parent)


# Outside the repository


def outside(text: str) -> set[str]:
    """Files of a folder beside the repository, which no reader of it has."""
    return set(re.findall(r"(?<![\w/.-])shared/[\w-]+\.\w+", text))


# Pages and their sections

_PAGE = re.compile(r"(?<![\w/.-])docs/[\w/-]+\.md")
_SCIENCE = re.compile(
    r"\b(?P<section>[A-Z]\.\d+)(?:\.(?P<item>\d+))?"
    r"(?:\s+(?:step|pitfall)s?\s+(?P<items>\d+[a-e]?(?:(?:,|\s+and)\s+\d+[a-e]?)*))?"
)
_PART = re.compile(r"docs/science\.md`?\s+(?P<part>[A-Z])\b(?![.\w])")
_ORGANISMS = re.compile(r"docs/organisms\.md`?\s+(?:sections?\s+)?(?P<numbers>\d+(?:(?:,|\s+and)\s+\d+)*)")


def pages(text: str) -> set[str]:
    """Pages of docs/ that are not there."""
    return {page for page in _PAGE.findall(text) if not (ROOT / page).is_file()}


@cache
def sections(page: str) -> dict[str, str]:
    """Text by the letter and number that a heading begins with, such as `A`, `A.1` or `12`."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    parts = re.split(r"^#{2,3} ((?:[A-Z]\.)?\d+|[A-Z])\.? ", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def science(text: str) -> set[str]:
    """Sections, steps and pitfalls of docs/science.md that are not there, in a text that cites the page."""
    if "docs/science.md" not in text:
        return set()
    flat = re.sub(r"[\s#]+", " ", text)
    there = sections("science.md")
    dangling = {match["part"] for match in _PART.finditer(flat) if match["part"] not in there}
    for match in _SCIENCE.finditer(flat):
        items = [*filter(None, [match["item"]]), *re.findall(r"\d+[a-e]?", match["items"] or "")]
        body = there.get(match["section"])
        if body is None or any(not re.search(rf"^ *(?:{item}\.|- {item}:) ", body, re.MULTILINE) for item in items):
            dangling.add(match.group())
    return dangling


def organisms(text: str) -> set[str]:
    """Sections of docs/organisms.md that are not there."""
    flat = re.sub(r"[\s#]+", " ", text)
    cited = {number for match in _ORGANISMS.finditer(flat) for number in re.findall(r"\d+", match["numbers"])}
    return cited - set(sections("organisms.md"))


# Modules and names

_DOTTED = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+)(?:\(\))?`")


def module(name: str) -> Path | None:
    path = ROOT / name.replace(".", "/")
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Names that statements bind, in a module or a class, with the statement."""
    for node in body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((alias.asname or alias.name, node) for alias in names)
            case ast.Assign(targets=targets):
                yield from ((n.id, node) for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node
            case ast.If(body=inner, orelse=other) | ast.Try(body=inner, orelse=other):
                yield from bound([*inner, *other])


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something bound in one, or in a class of one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        path = module(".".join(parts[:cut]))
        if path is None:
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for part in parts[cut:]:
            node = dict(bound(body)).get(part)
            if node is None:
                return False
            # What is imported, or the value of a name, is not followed.
            if not isinstance(node, ast.ClassDef):
                return True
            body = node.body
        return True
    return False


def modules(text: str) -> set[str]:
    """Names in code marks that begin with a module of a package, now or before modules were moved, and do not resolve.

    Others are left alone: tables, events and settings have dots in their names too.
    """
    names = {
        name
        for name in _DOTTED.findall(text)
        if module(".".join(name.split(".")[:2])) is not None or any(old in MOVED for old in prefixes(name))
    }
    return {name for name in names if not resolves(name)}


def prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:cut]) for cut in range(2, len(parts) + 1)]


# Files

_PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w-]+\.\w+)?)`")


@cache
def rooms() -> frozenset[str]:
    """Folders at the root of the repository."""
    return frozenset(path.relative_to(ROOT).parts[0] for path in tracked() if path.parent != ROOT)


def files(text: str) -> set[str]:
    """Files and folders (with a slash at their end) in code marks, from the root, that are not there."""
    return {path for path in _PATH.findall(text) if path.split("/")[0] in rooms() and not (ROOT / path).exists()}


FINDERS: tuple[Finder, ...] = (outside, pages, science, organisms, modules, files)


@pytest.mark.parametrize("finder", FINDERS, ids=lambda finder: finder.__name__)
def test_references_lead_somewhere(finder: Finder) -> None:
    found = {str(path.relative_to(ROOT)): finder(path.read_text(encoding="utf-8")) for path in tracked()}
    assert {path: dangling for path, dangling in found.items() if dangling} == {}


@pytest.mark.parametrize(
    ("finder", "text", "dangling"),
    [
        (outside, "see `shared/notes.md` and tests/shared/notes.md", {"shared/notes.md"}),
        (pages, "docs/science.md, docs/nowhere.md", {"docs/nowhere.md"}),
        (science, "`docs/science.md` A.1 step 5, C.5 pitfall 6, A.5.8 and B.1 step 6a", set()),
        (science, "`docs/science.md` A.1\n    # step 99", {"A.1 step 99"}),
        (science, "docs/science.md A.99; A.5.77; B.1 steps 3 and 88", {"A.99", "A.5.77", "B.1 steps 3 and 88"}),
        (science, "`docs/science.md` Z", {"Z"}),
        (science, "an A.99 that is no citation", set()),
        (organisms, "`docs/organisms.md` sections 5 and 99", {"99"}),
        (modules, "`probes.heads.search.search`, `probes.heads.nothing()`", {"probes.heads.nothing"}),
        (
            modules,
            "`probes.directions.Direction.norm`, `probes.directions.Direction.no`",
            {"probes.directions.Direction.no"},
        ),
        (modules, "`alerts.severity`, a column and no module", set()),
        (files, "`probes/directions.py`, `probes/no/such.py`, `nowhere/`", {"probes/no/such.py"}),
        (files, "`probes/nowhere/`", {"probes/nowhere/"}),
    ],
)
def test_a_dangling_reference_is_seen(finder: Finder, text: str, dangling: set[str]) -> None:
    assert finder(text) == dangling


def test_an_old_module_name_is_seen() -> None:
    old = next(name for name in sorted(MOVED) if name.startswith(PACKAGES) and not resolves(name))
    assert modules(f"`{old}` and `{old}.something`") == {old, f"{old}.something"}


def test_every_citation_of_a_section_is_read() -> None:
    """The finders see the citations that there are, so that finding nothing means something."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "probes").rglob("*.py"))
    cited = {match["section"] for match in _SCIENCE.finditer(re.sub(r"[\s#]+", " ", text))}
    assert cited >= {"A.1", "A.3", "A.4", "A.5", "A.6", "B.1", "B.4", "B.5", "C.1", "C.4", "C.5", "D.6"}


GENERATED = sorted(path for path in tracked() if path.suffix == ".md" and path not in PAGES)


@pytest.mark.parametrize("page", GENERATED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_other_pages_lead_somewhere(page: Path) -> None:
    """Pages that studies write, and those of the forge; `test_links` has the others."""
    found = {target: broken(page, target) for target in links(page.read_text(encoding="utf-8"))}
    assert {target: fault for target, fault in found.items() if fault} == {}
