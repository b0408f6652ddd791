"""The dashboards by Grafana's own published types, under the TypeScript compiler; and it sees what is wrong."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alerts.dashboards import dashboards
from alerts.dashboards.panels import Json
from tests.conftest import needs_program

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "types"


def panel(board: Json, kind: str) -> Json:
    return next(p for p in board["panels"] if p["type"] == kind)


def _set(kind: str, *path: str, to: Any) -> Callable[[Json], None]:
    def change(board: Json) -> None:
        at = panel(board, kind) if kind else board
        for name in path[:-1]:
            at = at[name]
        if to is None:
            del at[path[-1]]
        else:
            at[path[-1]] = to

    return change


# What is done to the probe's dashboard, and the word that the compiler must then say.
WRONG: dict[str, tuple[Callable[[Json], None], str]] = {
    "unknown_option": (_set("stat", "options", "colourMode", to="value"), "colourMode"),
    "value_of_no_enum": (_set("timeseries", "fieldConfig", "defaults", "custom", "drawStyle", to="dots"), "dots"),
    "missing_option": (_set("heatmap", "options", "exemplars", to=None), "exemplars"),
    "wrong_type": (_set("table", "options", "frameIndex", to="0"), "not assignable to type 'number'"),
    "unknown_kind": (_set("barchart", "type", to="bar"), "bar"),
    "no_description": (_set("stat", "description", to=None), "description"),
    "no_unit": (_set("stat", "fieldConfig", "defaults", "unit", to=None), "unit"),
    "unknown_setting": (_set("", "timezones", to="utc"), "timezones"),
    "link_of_no_kind": (_set("", "links", to=[{"type": "dashboard", "title": "x"}]), "dashboard"),
}


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the compiler says, by the name of the file: each dashboard, and the probe's with one thing wrong."""
    npm = needs_program("npm", "apt-get install npm")
    folder = tmp_path_factory.mktemp("types")
    for file in FOLDER.iterdir():
        shutil.copy(file, folder)
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and os.environ.get("CI") != "true":
        pytest.skip("needs npm's registry, for @grafana/schema and typescript")
    assert done.returncode == 0, done.stderr
    found = dict(dashboards())
    for name, (change, _) in WRONG.items():
        found[name] = copy.deepcopy(found["awry-probe"])
        change(found[name])
    for name, board in found.items():
        text = f"import type {{ Board }} from './board';\nexport const made: Board = {json.dumps(board, indent=1)};\n"
        (folder / f"{name}.ts").write_text(text)
    compiler = folder / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(["node", compiler, "-p", folder], cwd=folder, capture_output=True, text=True, check=False)
    said: dict[str, str] = dict.fromkeys(found, "")
    name = ""
    for line in done.stdout.splitlines():
        match = re.match(r"([\w-]+)\.ts\(", line)
        name = match[1] if match else name
        assert name, done.stdout
        said[name] = said.get(name, "") + line + "\n"
    assert set(said) == set(found), said.get("board", done.stderr)
    return said


def test_what_npm_installs_is_pinned_by_its_hash_and_names_no_address() -> None:
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    asked = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    found = {name.removeprefix("node_modules/"): facts for name, facts in lock["packages"].items() if name}
    assert {name: facts["version"] for name, facts in found.items()} == asked
    assert all(facts["integrity"].startswith("sha512-") and "resolved" not in facts for facts in found.values())


@pytest.mark.parametrize("uid", dashboards())
def test_a_dashboard_is_what_grafana_takes(errors: dict[str, str], uid: str) -> None:
    assert errors[uid][:3000] == ""


@pytest.mark.parametrize("name", WRONG)
def test_the_compiler_sees_what_is_wrong(errors: dict[str, str], name: str) -> None:
    assert WRONG[name][1] in errors[name]
