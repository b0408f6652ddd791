"""Old module names fail with the new one, in every form of the import statement."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from awry.moved import MOVED, PACKAGES
from tests.support import ROOT

GONE = sorted(set(MOVED) - set(PACKAGES))


@pytest.mark.parametrize("new", sorted(set(MOVED.values())))
def test_every_new_name_is_there(new: str) -> None:
    assert find_spec(new) is not None


@pytest.mark.parametrize("old", GONE)
def test_each_form_names_the_new_module(old: str) -> None:
    parent, _, leaf = old.rpartition(".")
    for statement in (f"import {old}", f"from {old} import anything", f"from {parent} import {leaf}"):
        with pytest.raises(ImportError) as raised:
            exec(statement, {})  # noqa: S102 - made of the table
        assert not isinstance(raised.value, ModuleNotFoundError)
        assert f"{old} is now {MOVED[old]}" in str(raised.value)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_in_the_place_of_a_module_names_what_moved(package: str) -> None:
    spec = find_spec(MOVED[package])
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    defined = [
        n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")
    ]
    # A function may have the name of a module beside it: importing the module wins.
    name = next(n for n in defined if not n.startswith("_") and find_spec(f"{package}.{n}") is None)
    with pytest.raises(ImportError, match=f"{package}.{name} is now {MOVED[package]}.{name}"):
        exec(f"from {package} import {name}", {})  # noqa: S102
    with pytest.raises(ImportError, match="is now"):
        getattr(importlib.import_module(package), name)
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module(package).no_such_name  # noqa: B018


def test_a_name_that_went_to_another_module_of_the_package() -> None:
    with pytest.raises(ImportError, match=r"storage.queries.outbox_counts is now storage.queries.outbox.outbox_counts"):
        exec("from storage.queries import outbox_counts", {})  # noqa: S102


def test_a_module_of_the_name_of_a_function_is_imported() -> None:
    from monitor.service import run

    assert run.__name__ == "monitor.service.run"


def test_submodules_of_such_a_package_import() -> None:
    from alerts.rules import model

    assert model.__name__ == "alerts.rules.model"


def test_names_that_never_were_are_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("monitor.no_such_module")


def test_the_finder_is_installed_by_any_of_the_packages() -> None:
    for package in ("monitor", "probes", "storage", "alerts"):
        old = next(name for name in GONE if name.startswith(f"{package}."))
        done = subprocess.run([sys.executable, "-c", f"import {old}"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert f"ImportError: {old} is now {MOVED[old]}" in done.stderr
