"""`awry run` and `awry replay` as processes: start-up, health, signals and the summary at the end.

Contract: SIGINT and SIGTERM drain: the batches in progress are stored and committed, then the process ends. The health
server runs from before the model is loaded; `/healthz` fails when no batch was finished for `stall_seconds`, `/readyz`
until the worker runs, has partitions and reaches its database.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from monitor.service import bootstrap
from monitor.service.policy import Tally
from monitor.service.progress import facts, is_terminal, reporting
from monitor.service.rollup_loop import rolling_up
from monitor.service.stale import check_stale
from monitor.service.worker import Worker
from monitor.settings import Settings
from monitor.stream.record import Source
from monitor.stream.wiring import check_source, open_source, topics_of
from monitor.telemetry import logs, metrics
from monitor.telemetry.gpu import watching_gpu
from monitor.telemetry.waiting import watching_waiting
from probes.progress import Progress
from storage.database import is_reachable

if TYPE_CHECKING:
    from monitor.telemetry.health import Check

DEFAULT_LISTEN = "127.0.0.1:9464"


class WorkerHealth:
    """The checks of the health server, for a worker that may not run yet."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._worker: Worker | None = None
        self._source: Source | None = None

    @contextmanager
    def of(self, worker: Worker, source: Source) -> Iterator[None]:
        """This worker runs now."""
        self._worker, self._source = worker, source
        metrics.OLDEST_UNSCORED_SECONDS.set_function(self.oldest_seconds)
        try:
            yield
        finally:
            self._worker = self._source = None

    def live(self) -> str | None:
        worker = self._worker
        seconds = time.monotonic() - worker.progress_at if worker is not None else 0.0
        return f"no batch was finished for {seconds:.0f} s" if seconds > self._settings.stall_seconds else None

    def ready(self) -> str | None:
        worker, source = self._worker, self._source
        if worker is None or source is None:
            return "starting or stopping"
        return source.trouble or (None if is_reachable(worker.engine) else "the database does not answer")

    def oldest_seconds(self) -> float:
        """Age of the oldest record that was read and is not stored."""
        source = self._source
        oldest = source.oldest if source is not None else None
        return max(0.0, (datetime.now(UTC) - oldest).total_seconds()) if oldest is not None else 0.0


def run(
    settings: Settings,
    progress: Progress,
    open_stream: Callable[[Settings], Source] = open_source,
    *,
    check: bool = True,
    live: bool = True,
) -> Tally:
    """Run one worker until its source ends or a signal comes; `check` checks the source before the model is loaded. A
    replay is not `live`."""
    from monitor.service import reading_run
    from monitor.service.engines import load_engine  # torch, which other processes do without
    from monitor.service.reads import sites_of
    from monitor.service.registered import with_registered

    listen = settings.listen or (DEFAULT_LISTEN if topics_of(settings) or settings.source == "spool" else None)
    health = WorkerHealth(settings)
    report = progress if is_terminal(settings.logs) else logs.logger().info
    with ExitStack() as stack:
        if listen is not None:
            from monitor.telemetry.health import serving

            server = stack.enter_context(serving(listen, live=health.live, ready=health.ready))
            report(f"metrics and health on http://{server.address}")
        if settings.readings:
            reading_run.check_readings(settings, live=live)
        if check:
            check_source(settings)
        bootstrap.check_files(settings)
        engine = bootstrap.open_database(settings, report)
        stack.callback(engine.dispose)
        if settings.readings:
            settings, probes = reading_run.load_cards(settings, engine, report)
        else:
            chat = bootstrap.open_model(settings, report, sites_of(settings, engine))
            settings = with_registered(settings, engine, chat)
            model, probes = load_engine(settings, chat, report)
            stack.callback(model.close)
        if live:
            check_stale(engine, probes, settings, bootstrap.load_rules(settings), report)
        source = stack.enter_context(closing(open_stream(settings)))
        on_batch = stack.enter_context(reporting(settings, source.lag_unit))
        worker = stack.enter_context(
            reading_run.building_worker(settings, engine, probes, source, on_batch)
            if settings.readings
            else bootstrap.building_worker(settings, engine, model, probes, source, on_batch, live=live)
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: worker.stop())
        stack.enter_context(health.of(worker, source))
        if not settings.readings:
            stack.enter_context(watching_gpu(chat.device))
        stack.enter_context(watching_waiting(lambda: source.waiting))
        stack.enter_context(rolling_up(engine, report))
        tally = worker.run()
    _report_end(settings, tally, progress)
    return tally


def _report_end(settings: Settings, tally: Tally, progress: Progress) -> None:
    if not is_terminal(settings.logs):
        logs.logger().info("finished", **facts(tally))
        return
    counts = ", ".join(f"{n} {status}" for status, n in sorted(tally.by_status.items())) or "nothing new"
    progress(f"{tally.messages} messages: {counts}, {tally.known} already known")
    progress(f"{tally.flagged} flagged, {tally.alerts} alerts opened")


@contextmanager
def until_signal() -> Iterator[Callable[[float], bool]]:
    """`wait(seconds)` is True once SIGINT or SIGTERM came; it returns at once then."""
    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping.wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def listening(listen: str | None, engine: Engine, progress: Progress) -> Iterator[None]:
    """Serve health and the database's metrics of a process without a worker; nothing when `listen` is None."""
    if listen is None:
        yield
        return
    from monitor.telemetry.health import serving

    with metrics.watching(engine), serving(listen, live=lambda: None, ready=ready_of(engine)) as server:
        progress(f"metrics and health on http://{server.address}")
        yield


def ready_of(engine: Engine) -> Check:
    """Ready as long as the database answers."""
    return lambda: None if is_reachable(engine) else "the database does not answer"
