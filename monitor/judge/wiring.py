"""From settings to a judge that is running: checked names, the audit of who gets text, bands, threads.

Contract: `judge_of(settings)` is None where no judge is set. `judging_of` asks about the probes in `judge_probes`, else
about all that are not in shadow; SettingsError names a probe that is not loaded, and says where there is none to ask
about.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from monitor.errors import SettingsError
from monitor.judge.band import Band
from monitor.judge.base import Judge
from monitor.judge.command import CommandJudge
from monitor.judge.endpoint import EndpointJudge
from monitor.judge.judging import Judging
from monitor.judge.limits import DailyCap
from monitor.judge.recording import Recording, audit_start, leave_abandoned
from monitor.judge.upkeep import Sizing, keeping, resize
from monitor.settings import Settings
from monitor.telemetry import metrics

if TYPE_CHECKING:
    from alerts.rules.model import ThresholdRule
    from probes.card import Probe


def judge_of(settings: Settings) -> Judge | None:
    """The judge that is set."""
    if settings.judge_url is not None:
        key = settings.judge_api_key
        return EndpointJudge(
            settings.judge_url,
            settings.judge_model or "",
            key.get_secret_value() if key is not None else None,
            settings.judge_request,
        )
    return CommandJudge(settings.judge_command) if settings.judge_command else None


def asked_probes(settings: Settings, probes: Sequence[Probe]) -> list[Probe]:
    """The probes whose uncertain messages a judge is asked about."""
    loaded = {probe.name for probe in probes}
    for setting in ("judge_probes", "judge_questions", "judge_bands"):
        unknown = sorted(set(getattr(settings, setting)) - loaded)
        if unknown:
            raise SettingsError(
                f"{setting}: {', '.join(unknown)} not among the loaded probes {', '.join(sorted(loaded))}"
            )
    if settings.judge_probes:
        return [probe for probe in probes if probe.name in settings.judge_probes]
    live = [probe for probe in probes if probe.name not in settings.shadow]
    if not live:
        raise SettingsError("judge_probes: all probes are in shadow; name those that the judge is to be asked about")
    return live


@contextmanager
def judging_of(
    settings: Settings, engine: Engine, judge: Judge, probes: Sequence[Probe], rules: Sequence[ThresholdRule]
) -> Iterator[Judging]:
    """The judging by the settings, with its upkeep; the caller runs it."""
    asked = asked_probes(settings, probes)
    recording = Recording(engine, judge.name, judge.host, settings.routing, rules)
    judging = Judging(
        judge,
        recording,
        bands={},
        cap=DailyCap(settings.judge_budget_per_day, settings.judge_tokens_per_day),
        questions=settings.judge_questions,
        seconds=settings.judge_seconds,
        wait_seconds=settings.judge_wait_seconds,
        threads=settings.judge_threads,
        queue_messages=settings.judge_queue_messages,
    )
    sizings = [
        Sizing(
            probe,
            settings.judge_budget_per_day / len(asked),
            Band(*settings.judge_bands[probe.name]) if probe.name in settings.judge_bands else None,
            shadow=probe.name in settings.shadow,
        )
        for probe in asked
    ]
    metrics.start_at_zero(probe=[probe.name for probe in asked])
    audit_start(
        engine,
        by=judge.name,
        host=judge.host,
        worker=socket.gethostname(),
        probes=[probe.name for probe in asked],
        budget_per_day=settings.judge_budget_per_day,
        characters=settings.judge_max_characters,
    )
    # A worker waits no longer than that for a verdict, and then writes what came of it.
    abandoned = timedelta(seconds=settings.judge_wait_seconds + settings.judge_seconds + 60)
    resize(engine, judging, sizings)
    leave_abandoned(engine, abandoned)
    with keeping(engine, judging, sizings, abandoned):
        yield judging
