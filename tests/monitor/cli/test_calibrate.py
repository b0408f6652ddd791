"""`awry calibrate --from-tables`: judged messages are left out of what a threshold is set on."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from probes.card import save_probe
from probes.model.load import ChatModel
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.alert_scenes import scored
from tests.support.cli import Invoke, invoke, output_of
from tests.support.rows import digest_of
from tests.support.stream.worker import make_probe


def test_calibration_leaves_judged_messages_out(engine: Engine, run: Invoke) -> None:
    from monitor.benign_scores import benign_scores

    scored(engine, 0, 30, value=0.1)
    scored(engine, 100, 5)
    keys = [flagged(100, tenant="a"), flagged(101, tenant="b"), flagged(102, tenant="c"), flagged(103, tenant="d")]
    opened = open_alerts(engine, keys)
    for one, verdict in zip(opened, ("true", "authorised_test", "false"), strict=False):
        output_of(run("alerts", "verdict", str(one.alert_id), verdict))
    said: list[str] = []
    with engine.connect() as connection:
        kept = benign_scores(connection, "drift", digest_of("drift"), said.append)
    assert sorted(row.at.offset for row in kept) == [*range(30), 102, 103, 104]
    assert said == [
        "2 of 35 messages left out: their alerts were judged true or authorised tests",
        "2 flagged messages have no verdict and count as benign; see awry alerts verdict",
    ]


def test_a_threshold_is_set_on_scores_of_the_same_card(
    engine: Engine, run: Invoke, chat: ChatModel, tmp_path: Path
) -> None:
    """What another version scored, and what is from before digests, is left out and counted."""
    probe = make_probe(chat)
    card = save_probe(probe, tmp_path)
    for n in range(40):
        scored(engine, n, value=n / 100, probe_digest=probe.digest)
    scored(engine, 100, 7, value=40, probe_digest="another")
    scored(engine, 200, 5, value=50, probe_digest="")
    calibrate = ("calibrate", "--probe", card, "--from-tables", "--target-fpr", "0.05", "--out", tmp_path / "new")
    said = output_of(run(*calibrate))
    assert "7 scores of other cards of drift and 5 of unknown digest (from before an upgrade) left out" in said
    assert "0 of 40 messages left out" in said
    assert "threshold 0.370" in said
    # The card that it wrote has not scored anything yet.
    again = run(*calibrate[:2], tmp_path / "new" / "drift.json", *calibrate[3:])
    assert "47 scores of other cards" in again.output
    assert "benign set: 0 messages; at least 20 are needed" in str(again.exception)


def test_calibrate_says_what_it_leaves_out(engine: Engine, run: Invoke, chat: ChatModel, tmp_path: Path) -> None:
    probe = make_probe(chat)
    card = save_probe(probe, tmp_path)
    for n in range(40):
        scored(engine, n, value=n / 100, probe_digest=probe.digest)
    scored(engine, 100, 2, probe_digest=probe.digest)
    (opened,) = open_alerts(engine, [flagged(100), flagged(101)])
    calibrate = ("calibrate", "--probe", card, "--from-tables", "--target-fpr", "0.05", "--out", tmp_path / "new")
    assert "0 of 42 messages left out" in output_of(run(*calibrate))
    output_of(run("alerts", "verdict", str(opened.alert_id), "true"))
    said = output_of(run(*calibrate))
    assert "2 of 42 messages left out: their alerts were judged true or authorised tests" in said
    # 5 % of 40 are the two highest, 0.39 and 0.38.
    assert "threshold 0.370" in said


def test_calibrate_says_that_it_starts_a_database(
    engine: Engine, chat: ChatModel, postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWRY_DATABASE_URL", raising=False)
    monkeypatch.setattr("storage.embedded.embedded_url", lambda _state_dir: postgres_database)
    probe = make_probe(chat)
    card = save_probe(probe, tmp_path)
    for n in range(40):
        scored(engine, n, value=n / 100, probe_digest=probe.digest)
    done = invoke("calibrate", "--probe", card, "--from-tables", "--target-fpr", "0.05", "--out", tmp_path / "new")
    assert done.stderr.splitlines()[0] == "awry: starting the embedded PostgreSQL", repr(done.exception)
