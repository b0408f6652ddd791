"""Rate and monitor rules, looked at every few seconds beside the sending of alerts.

Contract: within `evaluating(...)` a thread evaluates; a database that is away, or a defect, is waited out and told
once. What a look finds is counted in the metrics of this process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from alerts.evaluator import Evaluated, evaluate
from alerts.rules.model import Rules
from monitor.telemetry import metrics
from storage.errors import StorageError

Say = Callable[[str], None]

# What stands for a probe where a rule has none.
NO_PROBE = "-"


class Looks:
    """Looks, counts, and says what went wrong when it first does."""

    def __init__(self, engine: Engine, rules: Rules, destinations: Sequence[str], say: Say) -> None:
        self._engine, self._rules, self._destinations, self._say = engine, rules, destinations, say
        self._drift_rules = {rule.name for rule in rules.monitor if rule.check == "score_drift"}
        self._told: set[str] = set()

    def __call__(self) -> Evaluated | None:
        """One look; None when another process is at it, or it came to nothing."""
        try:
            done = evaluate(self._engine, self._rules, self._destinations)
        except (SQLAlchemyError, StorageError) as error:
            metrics.RULE_LOOKS.labels("failed").inc()
            self._complain({f"rules: not evaluated, the database does not answer ({type(error).__name__})"})
            return None
        except Exception as error:  # a thread that ended would be rules that nobody evaluates
            metrics.RULE_LOOKS.labels("failed").inc()
            self._complain({f"rules: not evaluated, a defect of awry ({type(error).__name__})"})
            return None
        if done is None:
            metrics.RULE_LOOKS.labels("left").inc()
            return None
        metrics.RULE_LOOKS.labels("failed" if done.failed else "done").inc()
        self._complain({f"rule {name}: cannot be evaluated ({why})" for name, why in done.failed.items()})
        self._count(done)
        return done

    def _complain(self, now: set[str]) -> None:
        for line in sorted(now - self._told):
            self._say(line)
        self._told = now

    def _count(self, done: Evaluated) -> None:
        for alert in done.opened:
            result = "suppressed" if alert.suppressed else "alerted"
            metrics.ALERTS.labels(alert.probe or NO_PROBE, alert.severity, result).inc()
        for probe, severity in done.would:
            metrics.ALERTS.labels(probe or NO_PROBE, severity, "would_alert").inc()
        # A probe that has too few scores in the window has no drift, rather than its last one for ever.
        metrics.SCORE_DRIFT.clear()
        for (rule, subject), value in done.values.items():
            if rule in self._drift_rules and subject.probe is not None:
                metrics.SCORE_DRIFT.labels(subject.probe).set(value)


@contextmanager
def evaluating(engine: Engine, rules: Rules, destinations: Sequence[str], every: float, say: Say) -> Iterator[None]:
    """Looks every so many seconds, until the block ends; the first at once."""
    ended = threading.Event()
    look = Looks(engine, rules, destinations, say)

    def work() -> None:
        pause = 0.0
        while not ended.wait(pause):
            look()
            pause = every

    thread = threading.Thread(target=work, name="rules", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
