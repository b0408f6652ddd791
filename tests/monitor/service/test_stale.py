"""What a worker does with a stale probe, on real tables."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from alerts.rules.builtin import built_in
from alerts.rules.model import MonitorRule, Rules
from monitor.errors import SettingsError
from monitor.service import bootstrap
from monitor.service.run import run
from monitor.service.stale import check_stale, show_age
from monitor.settings import Settings
from monitor.telemetry.metrics import REGISTRY
from probes.card import Probe
from probes.model.load import ChatModel
from storage.schema import scores
from tests.conftest import url_of
from tests.support.alerts.tails import HOUR, card, register, traffic
from tests.support.stream.worker import make_probe

RULES = built_in(0.5, 1.0)


def made(chat: ChatModel, days: int = 1, when: str | None = None, name: str = "drift") -> Probe:
    """A probe that was calibrated so many days ago."""
    probe = make_probe(chat, name)
    calibration = replace(
        probe.card.calibration,
        made=when if when is not None else (datetime.now(UTC).date() - timedelta(days=days)).isoformat(),
        n=2000,
        tail=((0.95, 0.95), (0.99, 0.99), (0.999, 0.999)),
    )
    return Probe(probe.card.model_copy(update={"calibration": calibration}), probe.directions)


def told(engine: Engine, probe: Probe, rules: Rules = RULES, **settings: Any) -> list[str]:
    lines: list[str] = []
    check_stale(engine, [probe], Settings(**settings), rules, lines.append)
    return lines


def drifting(engine: Engine, probe: Probe, days: int, factor: float = 6, probe_name: str = "drift") -> None:
    register(engine, probe_name, probe.digest, card())
    traffic(engine, 24 * days, factor=factor, probe=probe_name, digest=probe.digest)


def test_a_fresh_probe_is_not_stale(engine: Engine, chat: ChatModel) -> None:
    probe = made(chat, 179)
    drifting(engine, probe, 10, factor=1)
    assert told(engine, probe, stale_probe="refuse") == []
    assert told(engine, made(chat, when="in spring"), stale_probe="refuse") == []


def test_an_old_calibration(engine: Engine, chat: ChatModel) -> None:
    probe = made(chat, 200)
    (line,) = told(engine, probe)
    assert line == (
        f"stale probe drift: its calibration of {probe.card.calibration.made} is 200 days old "
        "(stale_calibration_days = 180); calibrate it with awry calibrate"
    )
    assert told(engine, probe, stale_probe="ignore") == []
    assert told(engine, probe, stale_probe="refuse", stale_calibration_days=200) == []
    assert told(engine, probe, stale_probe="refuse", shadow=("drift",)) == []
    with pytest.raises(
        SettingsError, match=r"probe drift: .* 200 days old .*awry calibrate\nor set stale_probe = warn"
    ):
        told(engine, probe, stale_probe="refuse")


def test_a_drift_that_lasts(engine: Engine, chat: ChatModel) -> None:
    probe = made(chat)
    drifting(engine, probe, 9)
    (line,) = told(engine, probe)
    assert "for 9 days (tail_drift, stale_drift_days = 7); awry calibrate --from-tables" in line
    assert told(engine, probe, stale_drift_days=9) == []
    with pytest.raises(SettingsError, match="probe drift: its traffic has not been what it was calibrated on"):
        told(engine, probe, stale_probe="refuse")
    # Calibrated again, it is another card.
    other = made(chat, 2)
    register(engine, "drift", other.digest, card())
    assert told(engine, other, stale_probe="refuse") == []


def test_a_drift_is_one_by_the_rules_that_there_are(engine: Engine, chat: ChatModel) -> None:
    probe = made(chat)
    drifting(engine, probe, 9)
    for more, number in (({"tolerance": 8.0}, 0), ({"probe": ("other",), "tolerance": 8.0}, 1), ({"window": DAY}, 1)):
        rules = Rules(monitor=(MonitorRule(name="own", check="tail_drift", **more),))
        assert len(told(engine, probe, rules)) == number


DAY = 24 * HOUR


def test_a_drift_of_a_few_days_is_for_the_rule(engine: Engine, chat: ChatModel) -> None:
    probe = made(chat)
    drifting(engine, probe, 3)
    assert told(engine, probe) == []


def test_the_age_is_a_metric(chat: ChatModel) -> None:
    show_age(made(chat, 3, name="aged"))
    age = REGISTRY.get_sample_value("awry_probe_calibration_age_seconds", {"probe": "aged"})
    assert age is not None
    assert 3 * 86_400 <= age < 4 * 86_400 + 60
    show_age(made(chat, when="in spring", name="unknown"))
    assert REGISTRY.get_sample_value("awry_probe_calibration_age_seconds", {"probe": "unknown"}) is None


def test_a_worker_refuses_to_start(engine: Engine, tiny_folder: Path, tmp_path: Path) -> None:
    """Before it reads a message, and a replay does not ask."""
    shown = json.loads((tiny_folder / "drift.json").read_text())
    shown["calibration"]["made"] = (datetime.now(UTC).date() - timedelta(days=400)).isoformat()
    path = tmp_path / "drift.json"
    path.write_text(json.dumps(shown))
    shutil.copy(tiny_folder / "drift.safetensors", tmp_path)
    stream = tmp_path / "in.jsonl"
    stream.write_text('{"id": "1", "messages": [{"role": "user", "content": "hello there"}]}\n')
    settings = Settings(
        database_url=url_of(engine),
        state_dir=tmp_path / "state",
        model=str(tiny_folder / "tiny-chat"),
        probes=(str(path),),
        source=str(stream),
        stale_probe="refuse",
        logs="json",
        dtype="float32",
        max_tokens=64,
    )
    with pytest.raises(SettingsError, match=r"probe drift: .*400 days old"):
        run(settings, lambda _: None)
    assert number_of_scores(engine) == 0
    run(settings, lambda _: None, live=False)
    assert number_of_scores(engine) == 1


def number_of_scores(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(scores)).scalar_one()


def test_register_shows_the_age(engine: Engine, chat: ChatModel) -> None:
    bootstrap.register(engine, [made(chat, 5, name="registered")], Settings())
    assert REGISTRY.get_sample_value("awry_probe_calibration_age_seconds", {"probe": "registered"}) is not None
