"""The house's import arrows, held by walking the syntax trees: lazily imported modules count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "monitor": {"monitor", "probes", "storage", "alerts"},
    "alerts": {"alerts", "storage"},
    "probes": {"probes"},
    "storage": {"storage"},
}
_IMPORTERS = {"import_module", "__import__", "find_spec"}


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every absolute import anywhere in a file; also those by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if called in _IMPORTERS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value


def forbidden(source: str, package: str) -> list[tuple[int, str]]:
    """Imports of a file of `package` that go against the arrows."""
    refused = (set(ALLOWED) | {"tests", "benchmarks"}) - ALLOWED[package]
    return [(line, name) for line, name in imported(ast.parse(source)) if name.split(".")[0] in refused]


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for line, name in forbidden(path.read_text(encoding="utf-8"), package)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("import monitor", "probes"),
        ("def f():\n    from storage.writer import clean", "probes"),
        ("if True:\n    import probes.model.load as m", "storage"),
        ("import importlib\nimportlib.import_module('alerts.rules.model')", "storage"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from monitor.service import worker",
            "alerts",
        ),
        ("from tests.conftest import needs_program", "monitor"),
    ],
)
def test_the_walk_sees(source: str, package: str) -> None:
    assert len(forbidden(source, package)) == 1


def test_the_walk_allows_the_arrows() -> None:
    assert forbidden("import probes, alerts.rules.model\nfrom storage import schema\nimport torch", "monitor") == []
