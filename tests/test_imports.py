"""The house's import arrows and the absence of cycles, held by walking the syntax trees.

Imports inside functions, under `if TYPE_CHECKING` and by name (`import_module`) count like any other. A *room* is a
package or a module below which everything obeys one row of ARROWS; the longest name that fits decides.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGES = ("awry", "monitor", "probes", "storage", "alerts")
# Outside the packages: nothing that ships may import them.
OUTSIDE = ("tests", "benchmarks", "scripts")

# Names, errors and destinations; what decides on an alert; what delivers.
_ALERTS = {"alerts", "alerts.rules", "alerts.routing", "alerts.lifecycle"}
_MONITOR = {"monitor", "monitor.telemetry", "monitor.stream", "monitor.service"}

# Who may import whom, beside itself and the leaves of `awry`; an arrow that nothing uses goes.
ARROWS: dict[str, set[str]] = {
    "awry": {"monitor", "monitor.cli", "monitor.service", "probes"},
    "awry.deadline": set(),
    "awry.errors": set(),
    "awry.moved": set(),
    "awry.periodic": set(),
    "awry.whole_file": set(),
    # The command, and what only commands need.
    "monitor.cli": _MONITOR
    | {
        "monitor.ingest",
        "monitor.score_server",
        "monitor.web",
        "monitor.datasets",
        "monitor.labelling",
        "monitor.benign_scores",
    }
    | {"monitor.labelled_alerts"}
    | {"monitor.demo", "monitor.stack", "monitor.config", "monitor.doctor"}
    | _ALERTS
    | {"alerts.delivery", "alerts.senders.base", "alerts.dashboards"}
    | {"storage", "probes", "probes.heads", "probes.organisms", "probes.studies"},
    "monitor.stack": {"monitor", "monitor.stream", "monitor.service", "monitor.demo", "storage"},
    "monitor.demo": {"monitor", "monitor.stream", "monitor.service", "monitor.labelling"}
    | {"alerts", "alerts.lifecycle", "alerts.delivery", "storage", "probes", "probes.organisms"},
    "monitor.config": {"monitor", "monitor.stream", "monitor.telemetry", "probes", "storage"}
    | {"alerts", "alerts.rules", "alerts.delivery"},
    "monitor.doctor": {"monitor", "monitor.config", "monitor.stream", "monitor.service", "monitor.telemetry"}
    | {"alerts", "storage"},
    "monitor.datasets": {"monitor", "monitor.stream", "probes"},
    "monitor.labelling": {"probes"},
    "monitor.benign_scores": {"storage"},
    "monitor.labelled_alerts": {"monitor", "monitor.stream", "monitor.web", "alerts.lifecycle", "storage"},
    # The service: page and API, worker, stream. `monitor` is settings and errors.
    "monitor.web": {"monitor.telemetry", "storage"} | _ALERTS - {"alerts.routing"},
    "monitor.ingest": {"monitor", "monitor.stream", "monitor.telemetry", "monitor.web"},
    "monitor.score_server": {"monitor", "monitor.stream", "monitor.service", "monitor.ingest", "monitor.telemetry"}
    | {"monitor.web", "storage", "probes"},
    "monitor.service": {"monitor", "monitor.stream", "monitor.telemetry", "monitor.judge", "monitor.readings.schema"}
    | {"alerts.evaluator", "storage", "probes"}
    | _ALERTS,
    "monitor.judge": {"monitor", "monitor.telemetry", "storage", "probes"}
    | {"alerts.rules", "alerts.routing", "alerts.lifecycle"},
    "monitor.stream": {"monitor", "monitor.telemetry", "storage"}
    | {"monitor.readings.schema", "monitor.stream.formats.fields"},
    # What an engine publishes; inside the engine it runs without what the rest of awry needs.
    "monitor.readings": {"monitor", "monitor.readings.schema", "monitor.stream", "probes"},
    "monitor.readings.schema": {"monitor.stream.formats.fields", "storage"},
    "monitor.stream.formats.fields": set(),
    "monitor.telemetry": {"monitor", "alerts.rules", "storage"},
    "monitor": {"alerts", "alerts.rules", "alerts.routing"},
    # Alerts. `alerts` is errors, destinations, ids, links and text.
    "alerts.evaluator": {"alerts", "alerts.rules", "alerts.routing", "alerts.lifecycle", "storage"},
    "alerts.lifecycle": {"alerts", "alerts.rules", "alerts.routing", "storage"},
    "alerts.rules": {"alerts", "alerts.routing", "storage"},
    "alerts.routing": {"storage"},
    "alerts.delivery": {"alerts", "alerts.rules", "alerts.routing", "alerts.lifecycle"}
    | {"alerts.senders", "alerts.senders.base", "storage"},
    "alerts.senders": {"alerts", "alerts.senders.base", "alerts.formats"},
    "alerts.formats": {"alerts", "alerts.rules", "alerts.senders.base"},
    "alerts.senders.base": set(),
    "alerts.dashboards": {"alerts", "alerts.rules"},
    "alerts": set(),
    # Science: what scoring and fitting need imports nothing of the rest.
    "probes.studies": {"probes", "probes.heads", "probes.organisms"},
    "probes.organisms": {"probes"},
    "probes.heads": {"probes"},
    "probes": set(),
    "storage": set(),
}
LEAVES = {"awry.deadline", "awry.errors", "awry.moved", "awry.periodic", "awry.whole_file"}
_IMPORTERS = {"import_module", "__import__", "find_spec"}


def modules(root: Path = ROOT) -> dict[str, str]:
    """Dotted name -> source of every module that ships."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def imported(source: str, known: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """(line, module) of every absolute import anywhere in a file; also those by name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield node.lineno, submodule if submodule in known else node.module
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0]
            if called in _IMPORTERS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value


def room_of(module: str) -> str:
    """The room that a module is in: the longest row of ARROWS that it is, or is below of."""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in ARROWS), parts[0])


def forbidden(module: str, source: str, known: Mapping[str, str]) -> list[tuple[int, str]]:
    """Imports of a module that go against the arrows."""
    room = room_of(module)
    allowed = ARROWS[room] | {room} | LEAVES
    ours = {*PACKAGES, *OUTSIDE}
    return [
        (line, name)
        for line, name in imported(source, known)
        if name.split(".")[0] in ours and room_of(name) not in allowed
    ]


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """The nodes of a cycle, empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> the modules that it imports, itself left out."""
    return {
        module: {name for _, name in imported(source, sources) if name in sources and name != module}
        for module, source in sources.items()
    }


SOURCES = modules()


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    ours = [module for module in SOURCES if module.split(".")[0] == package]
    assert ours
    found = [
        f"{module}:{line} imports {name}"
        for module in ours
        for line, name in forbidden(module, SOURCES[module], SOURCES)
    ]
    assert found == []


def test_no_module_is_in_a_cycle() -> None:
    assert cycle(import_graph(SOURCES)) == []


def test_no_room_is_in_a_cycle() -> None:
    """`awry` re-exports lazily what others define, and its leaves are rooms of their own."""
    assert cycle({room: to - {room} for room, to in ARROWS.items()}) == []


def test_every_room_is_there_and_every_arrow_is_used() -> None:
    used: dict[str, set[str]] = {room: set() for room in ARROWS}
    for module, source in SOURCES.items():
        used[room_of(module)] |= {room_of(name) for _, name in imported(source, SOURCES) if name in SOURCES}
    assert {room for room in ARROWS if not any(room_of(m) == room for m in SOURCES)} == set()
    assert {room: unused for room, to in ARROWS.items() if (unused := to - used[room] - {room})} == {}


def test_benchmarks_do_not_import_tests() -> None:
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        names = [name for _, name in imported(path.read_text(encoding="utf-8"), SOURCES)]
        assert not [name for name in names if name.split(".")[0] == "tests"], path


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import monitor", "probes.card"),
        ("def f():\n    from storage.writer import write_batch", "probes.card"),
        ("if True:\n    import probes.model.load as m", "storage.writer"),
        ("import importlib\nimportlib.import_module('alerts.rules.model')", "storage.writer"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from monitor.service import worker", "alerts.ids"),
        ("from tests.conftest import needs_program", "monitor.settings"),
        ("from probes.heads import search", "probes.scoring"),
        ("from probes.studies import direction", "monitor.service.worker"),
        ("from alerts.delivery.deliver import deliver_due", "alerts.senders.chat"),
        ("from monitor.service.worker import Worker", "monitor.stream.wiring"),
    ],
)
def test_the_walk_sees(source: str, module: str) -> None:
    assert len(forbidden(module, source, SOURCES)) == 1


def test_the_walk_allows_the_arrows() -> None:
    source = (
        "import probes.card, alerts.rules\nfrom storage import schema\nfrom awry.errors import AwryError\nimport torch"
    )
    assert forbidden("monitor.service.worker", source, SOURCES) == []


def test_a_cycle_is_seen_also_where_it_is_lazy() -> None:
    sources = {"a": "def f():\n    from b import g", "b": "import c", "c": "from a import f", "d": "import a"}
    assert set(cycle(import_graph(sources))) == {"a", "b", "c"}
