"""Evaluates rate and monitor rules every few seconds, beside the delivery of notifications.

Contract: within `evaluating(...)` a thread evaluates; a database that does not answer, or a defect, is waited for and
reported once. What an evaluation opens and measures is counted in the metrics of this process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import Gauge
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from alerts.evaluator import Evaluated, evaluate
from alerts.routing.routing import Destinations
from alerts.rules.exceptions import STATES, warnings
from alerts.rules.model import Rules
from awry.periodic import periodic
from monitor.telemetry import metrics
from storage.errors import StorageError

Report = Callable[[str], None]

# The label of a probe where a rule has none.
NO_PROBE = "-"
_DRIFT: Mapping[str, Gauge] = {"score_drift": metrics.SCORE_DRIFT, "tail_drift": metrics.TAIL_DRIFT}


class RuleEvaluation:
    """Evaluates once a call, counts, and reports an error when it first occurs."""

    def __init__(self, engine: Engine, rules: Rules, destinations: Destinations, report: Report) -> None:
        self._engine, self._rules, self._destinations, self._report = engine, rules, destinations, report
        self._gauges = {rule.name: _DRIFT[rule.check] for rule in rules.monitor if rule.check in _DRIFT}
        self._reported: set[str] = set()

    def __call__(self) -> Evaluated | None:
        """One evaluation; None when another process is evaluating, or it failed."""
        try:
            evaluated = evaluate(self._engine, self._rules, self._destinations)
        except (SQLAlchemyError, StorageError) as error:
            metrics.RULE_EVALUATIONS.labels("failed").inc()
            self._report_new({f"rules: not evaluated, the database does not answer ({type(error).__name__})"})
            return None
        except Exception as error:  # a thread that ended would leave rules unevaluated
            metrics.RULE_EVALUATIONS.labels("failed").inc()
            self._report_new({f"rules: not evaluated, a defect of awry ({type(error).__name__})"})
            return None
        if evaluated is None:
            metrics.RULE_EVALUATIONS.labels("left").inc()
            return None
        metrics.RULE_EVALUATIONS.labels("failed" if evaluated.failed else "done").inc()
        self._report_new(
            {f"rule {name}: cannot be evaluated ({why})" for name, why in evaluated.failed.items()}
            | {f"nothing is resolved for want of messages: {why}" for why in evaluated.blind}
            | set(warnings(self._rules.exception, datetime.now(UTC)))
        )
        self._count(evaluated)
        return evaluated

    def _report_new(self, errors: set[str]) -> None:
        for line in sorted(errors - self._reported):
            self._report(line)
        self._reported = errors

    def _count(self, evaluated: Evaluated) -> None:
        for alert in evaluated.opened:
            result = "suppressed" if alert.suppressed else "alerted"
            metrics.ALERTS.labels(alert.probe or NO_PROBE, alert.severity, result).inc()
        for probe, severity in evaluated.would_open:
            metrics.ALERTS.labels(probe or NO_PROBE, severity, "would_alert").inc()
        for probe, severity in evaluated.excepted:
            metrics.ALERTS.labels(probe or NO_PROBE, severity, "excepted").inc()
        states = Counter(each.state(datetime.now(UTC)) for each in self._rules.exception)
        for state in STATES:
            metrics.EXCEPTIONS.labels(state.replace(" ", "_")).set(states[state])
        # A probe that has too few scores in the window has no drift, rather than its last one for ever.
        for gauge in _DRIFT.values():
            gauge.clear()
        for (rule, subject), value in evaluated.values.items():
            if rule in self._gauges and subject.probe is not None and subject.tenant is None:
                self._gauges[rule].labels(subject.probe).set(value)


@contextmanager
def evaluating(
    engine: Engine, rules: Rules, destinations: Destinations, every: float, report: Report
) -> Iterator[None]:
    """Evaluate at once and then every `every` seconds, until the block ends."""
    evaluation = RuleEvaluation(engine, rules, destinations, report)

    def work() -> None:
        evaluation()

    with periodic(work, every=every, name="rules"):
        yield
