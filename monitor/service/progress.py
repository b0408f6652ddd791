"""Progress of the worker: a line with rate and lag on a terminal, JSON logs otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from monitor.console import make_console
from monitor.telemetry import logs

if TYPE_CHECKING:
    from alerts.lifecycle.lifecycle import Opened
    from monitor.service.policy import Tally
    from monitor.service.worker import OnBatch
    from monitor.settings import Settings

_LOG_EVERY_SECONDS = 5.0


def is_terminal(choice: str) -> bool:
    """Whether progress is shown on a terminal, by the `logs` setting."""
    return choice == "terminal" or (choice == "auto" and sys.stderr.isatty())


@contextmanager
def reporting(settings: Settings, lag_unit: str) -> Iterator[OnBatch]:
    """The worker's callback that shows its progress."""
    if not is_terminal(settings.logs):
        yield _json_reporter(lag_unit)
        return
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from alerts.text import printable

    console = make_console(stderr=True, markup=True)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("waiting for messages", total=None)

        def on_batch(tally: Tally, opened: Sequence[Opened], lag: int | None) -> None:
            for alert in opened:
                key = escape(printable(alert.dedup_key))
                console.print(f"[bold]{alert.severity.upper()}[/] {alert.event} {key}", highlight=False)
            bar.update(task, description=describe(tally, lag, lag_unit))

        yield on_batch


def describe(tally: Tally, lag: int | None, lag_unit: str) -> str:
    """One line: counts, rates, lag."""
    seconds = max(tally.seconds, 1e-9)
    behind = "" if lag is None else f", {lag:,} {lag_unit} behind"
    return (
        f"{tally.messages} messages ({tally.messages / seconds:.1f}/s, {tally.tokens / seconds:.0f} tokens/s), "
        f"{tally.flagged} flagged, {tally.alerts} alerts{behind}"
    )


def _json_reporter(lag_unit: str) -> OnBatch:
    log = logs.logger()
    last = 0.0

    def on_batch(tally: Tally, opened: Sequence[Opened], lag: int | None) -> None:
        nonlocal last
        for alert in opened:
            log.warning(alert.event, alert_id=str(alert.alert_id), dedup_key=alert.dedup_key, severity=alert.severity)
        now = time.monotonic()
        if now - last >= _LOG_EVERY_SECONDS:
            last = now
            log.info("progress", **facts(tally), lag=lag, lag_unit=lag_unit)

    return on_batch


def facts(tally: Tally) -> dict[str, object]:
    """A tally as log fields."""
    return {
        "records": tally.messages,
        "already_known": tally.known,
        **tally.by_status,
        "flagged": tally.flagged,
        "alerts": tally.alerts,
        "tokens": tally.tokens,
        "seconds": round(tally.seconds, 2),
    }
