"""Where modules went when the packages were ordered into rooms; for one release, then this file goes.

Contract: after `install()`, importing a module by a name that it no longer has raises ImportError with the new name, in
each of the three forms (`import a.b`, `from a.b import c`, `from a import b`). Where a package stands in the place of
a module (`alerts.rules`), the package gets `__getattr__ = package_in_place_of(__name__)`: it raises for names that its
modules define. Imports nothing of awry, so that every package may import it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

# Old name -> new name.
MOVED = {
    "alerts.actions": "alerts.lifecycle.actions",
    "alerts.api": "monitor.web.api",
    "alerts.api.alert_routes": "monitor.web.api.alerts",
    "alerts.api.app": "monitor.web.api.app",
    "alerts.api.envelope": "monitor.web.api.middleware",
    "alerts.api.gate": "monitor.web.api.middleware",
    "alerts.api.holders": "monitor.web.auth.authenticate",
    "alerts.api.limiting": "monitor.web.auth.rate_limit",
    "alerts.api.paging": "monitor.web.api.pagination",
    "alerts.api.problems": "monitor.web.api.problems",
    "alerts.api.reading_routes": "monitor.web.api.reading",
    "alerts.api.requests": "monitor.web.api.requests",
    "alerts.api.schemas": "monitor.web.api.schemas",
    "alerts.api.serving": "monitor.web.api.dependencies",
    "alerts.api.silence_routes": "monitor.web.api.silences",
    "alerts.api.tokens": "monitor.web.auth.tokens",
    "alerts.audit": "alerts.lifecycle.audit",
    "alerts.backlog": "alerts.delivery.admin",
    "alerts.backoff": "alerts.delivery.backoff",
    "alerts.bodies": "alerts.lifecycle.enqueue",
    "alerts.budget": "alerts.rules.budget",
    "alerts.claims": "alerts.delivery.queue",
    "alerts.couriers": "alerts.delivery.channel",
    "alerts.drift": "alerts.rules.drift",
    "alerts.durations": "alerts.rules.durations",
    "alerts.events": "alerts.formats",
    "alerts.events.ecs": "alerts.formats.ecs",
    "alerts.events.ocsf": "alerts.formats.ocsf",
    "alerts.folding": "alerts.delivery.grouping",
    "alerts.grafana": "alerts.dashboards",
    "alerts.grafana.board": "alerts.dashboards.board",
    "alerts.grafana.changes": "alerts.dashboards.changes",
    "alerts.grafana.errors": "alerts.errors",
    "alerts.grafana.investigate": "alerts.dashboards.investigate",
    "alerts.grafana.overview": "alerts.dashboards.overview",
    "alerts.grafana.parts": "alerts.dashboards.panels",
    "alerts.grafana.probe": "alerts.dashboards.probe",
    "alerts.grafana.provisioning": "alerts.dashboards.provisioning",
    "alerts.grafana.push": "alerts.dashboards.push",
    "alerts.grafana.worker": "alerts.dashboards.worker",
    "alerts.hysteresis": "alerts.rules.hysteresis",
    "alerts.lease": "alerts.delivery.lease",
    "alerts.lifecycle": "alerts.lifecycle.lifecycle",
    "alerts.loop": "alerts.delivery.loop",
    "alerts.measures": "alerts.rules.queries",
    "alerts.outbox": "alerts.delivery.deliver",
    "alerts.page": "monitor.web.ui",
    "alerts.page.access": "monitor.web.ui.access",
    "alerts.page.app": "monitor.web.ui.app",
    "alerts.page.cards": "monitor.web.ui.cards",
    "alerts.page.charts": "monitor.web.ui.charts",
    "alerts.page.forms": "monitor.web.ui.forms",
    "alerts.page.views": "monitor.web.ui.views",
    "alerts.page.writing": "monitor.web.ui.formatting",
    "alerts.pages": "alerts.delivery.notification",
    "alerts.patterns": "alerts.rules.patterns",
    "alerts.rehearsal": "alerts.rules.backtest",
    "alerts.rulefile": "alerts.rules.file",
    "alerts.rules": "alerts.rules.model",
    "alerts.silences": "alerts.lifecycle.silences",
    "alerts.standing": "alerts.delivery.resend",
    "alerts.states": "alerts.lifecycle.states",
    "alerts.tomllines": "alerts.rules.toml_lines",
    "alerts.trial": "alerts.delivery.sample",
    "alerts.upkeep": "alerts.lifecycle.expiry",
    "alerts.wording": "alerts.text",
    "monitor.answers": "monitor.service.mitigation",
    "monitor.assemble": "monitor.service.bootstrap",
    "monitor.broker": "monitor.stream.kafka.embedded",
    "monitor.cli.alerting": "monitor.cli.operations.alerts",
    "monitor.cli.connections": "monitor.cli.inputs",
    "monitor.cli.database": "monitor.cli.operations.db",
    "monitor.cli.grafana": "monitor.cli.operations.grafana",
    "monitor.cli.models": "monitor.cli.research.models",
    "monitor.cli.outbox": "monitor.cli.operations.outbox",
    "monitor.cli.rules": "monitor.cli.operations.rules",
    "monitor.cli.science": "monitor.cli.research.fit",
    "monitor.cli.service": "monitor.cli.processes.run",
    "monitor.cli.stream": "monitor.cli.processes.replay",
    "monitor.cli.study": "monitor.cli.research.study",
    "monitor.cli.study_inputs": "monitor.cli.inputs",
    "monitor.cli.tokens": "monitor.cli.operations.tokens",
    "monitor.cli": "monitor.cli.app",
    "monitor.cluster": "monitor.stream.kafka.client",
    "monitor.dead_letters": "monitor.service.dead_letter_limit",
    "monitor.evaluation": "monitor.service.rule_loop",
    "monitor.gpu": "monitor.telemetry.gpu",
    "monitor.health": "monitor.telemetry.health",
    "monitor.incidents": "monitor.cli.render.alerts",
    "monitor.items": "monitor.service.batch_rows",
    "monitor.judged": "monitor.benign_scores",
    "monitor.logs": "monitor.telemetry.logs",
    "monitor.metrics": "monitor.telemetry.metrics",
    "monitor.outcomes": "monitor.service.batch_rows",
    "monitor.presence": "monitor.service.heartbeat",
    "monitor.progress": "monitor.service.progress",
    "monitor.replay": "monitor.service.replay",
    "monitor.reports": "monitor.cli.render.probes",
    "monitor.rolling": "monitor.service.rollup_loop",
    "monitor.scoring": "monitor.service.scoring",
    "monitor.service": "monitor.service.run",
    "monitor.sinks": "monitor.stream.sinks",
    "monitor.sinks.jsonl": "monitor.stream.sinks.jsonl",
    "monitor.sinks.kafka": "monitor.stream.sinks.kafka",
    "monitor.sources": "monitor.stream.record",
    "monitor.sources.headers": "monitor.stream.kafka.headers",
    "monitor.sources.jsonl": "monitor.stream.jsonl",
    "monitor.sources.kafka": "monitor.stream.kafka.source",
    "monitor.sources.ledger": "monitor.stream.kafka.inflight",
    "monitor.sources.lookup": "monitor.stream.kafka.lookup",
    "monitor.sources.positions": "monitor.stream.kafka.offset_reset",
    "monitor.sources.start": "monitor.stream.kafka.start_offset",
    "monitor.sources.stored": "monitor.stream.stored",
    "monitor.streams": "monitor.stream.wiring",
    "monitor.web": "monitor.web.server",
    "monitor.wire": "monitor.stream.wire",
    "monitor.worker": "monitor.service.worker",
    "probes.ablation": "probes.heads.ablation",
    "probes.aggregation": "probes.capture.aggregation",
    "probes.arms": "probes.conditions",
    "probes.attribution": "probes.heads.attribution",
    "probes.batches": "probes.capture.batches",
    "probes.choices": "probes.binary_choice",
    "probes.coherence": "probes.steer.coherence",
    "probes.contrast": "probes.steer.contrast",
    "probes.generation": "probes.steer.generation",
    "probes.head_probe": "probes.heads.detector",
    "probes.head_search": "probes.heads.search",
    "probes.head_steering": "probes.heads.row_steering",
    "probes.head_trials": "probes.heads.choice_scoring",
    "probes.kept": "probes.result_cache",
    "probes.layout": "probes.model.layout",
    "probes.models": "probes.model.load",
    "probes.modelstore": "probes.model.builtin",
    "probes.organisms.advice_judge": "probes.organisms.judges.advice",
    "probes.organisms.planted.training": "probes.organisms.planted.train",
    "probes.organisms.refusal_judge": "probes.organisms.judges.refusal",
    "probes.organisms.shipped": "probes.model.adapters",
    "probes.organisms.training": "probes.organisms.train",
    "probes.probefile": "probes.card",
    "probes.recipes": "probes.steer.recipe",
    "probes.recording": "probes.heads.recording",
    "probes.replay": "probes.heads.block_replay",
    "probes.sites": "probes.capture.sites",
    "probes.steering": "probes.steer.steering",
    "probes.studies.head_overlap": "probes.studies.safety_heads.overlap",
    "probes.studies.bench": "probes.studies.runner",
    "probes.studies.direction.product": "probes.studies.direction.export",
    "probes.studies.heads": "probes.studies.head_steering.run",
    "probes.studies.heads_conditions": "probes.studies.head_steering.conditions",
    "probes.studies.heads_open": "probes.studies.head_steering.open_answers",
    "probes.studies.heads_product": "probes.studies.head_steering.export",
    "probes.studies.heads_report": "probes.studies.head_steering.report",
    "probes.studies.heads_verdict": "probes.studies.head_steering.verdict",
    "probes.studies.safety_heads": "probes.studies.safety_heads.run",
    "probes.studies.safety_product": "probes.studies.safety_heads.export",
    "probes.studies.safety_report": "probes.studies.safety_heads.report",
    "probes.studies.safety_scores": "probes.studies.safety_heads.scores",
    "probes.studies.safety_trials": "probes.studies.safety_heads.trials",
    "probes.studies.transfer": "probes.studies.transfer.run",
    "probes.studies.transfer_detection": "probes.studies.transfer.detection",
    "probes.studies.transfer_product": "probes.studies.transfer.export",
    "probes.studies.transfer_report": "probes.studies.transfer.report",
    "probes.studies.transfer_tables": "probes.studies.transfer.tables",
    "probes.transfer": "probes.studies.transfer.maps",
    "storage.details": "storage.queries.messages",
    "storage.overview": "storage.queries.overview",
    "storage.presence": "storage.heartbeat",
    "storage.queries": "storage.queries.messages",
}
# The old name is a package by now, so that importing it succeeds.
PACKAGES = tuple(sorted(old for old, new in MOVED.items() if new.startswith(f"{old}.")))


class _Finder:
    """Knows the old names, and finds nothing."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        """Raises ImportError for an old name; else None, so that the next finder is asked."""
        if name in MOVED and name not in PACKAGES:
            raise ImportError(_message(name), name=name)
        return None


def install() -> None:
    """Have the import system know the old names; calling it again changes nothing."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def package_in_place_of(package: str) -> Callable[[str], object]:
    """The `__getattr__` of a package that stands where a module of its name stood."""

    def __getattr__(name: str) -> object:  # noqa: N807 - the module's own
        # `from package import module` asks here before the module is imported.
        if not name.startswith("__") and find_spec(f"{package}.{name}") is None:
            home = _home_of(package, name)
            if home is not None:
                raise ImportError(f"{package}.{name} is now {home}.{name}", name=package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__


def _message(old: str) -> str:
    children = [f"{name} is now {new}" for name, new in MOVED.items() if name.startswith(f"{old}.")]
    return "; ".join([f"{old} is now {MOVED[old]}", *children])


def _home_of(package: str, name: str) -> str | None:
    """The module of a package that defines a name at its top level, the one that took most first; read, not run."""
    modules = sorted(Path(sys.modules[package].__path__[0]).glob("*.py"))
    first = MOVED[package].rpartition(".")[2]
    for path in sorted(modules, key=lambda path: path.stem != first):
        if name in _names_of(path):
            return f"{package}.{path.stem}"
    return None


def _names_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names
