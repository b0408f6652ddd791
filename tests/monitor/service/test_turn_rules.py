"""Rules on what the turns of a conversation say together, through the worker: they alert where no score is flagged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from monitor.telemetry import metrics
from probes.card import Probe
from probes.model.load import ChatModel
from storage import schema
from tests.support.alerts.alert_rows import all_alerts, all_outbox
from tests.support.alerts.alert_scenes import rules
from tests.support.rows import stored
from tests.support.stream.worker import Run, lines, make_probe, run_worker, wire

# What the tiny model makes of these is asserted where it matters. Each turn of RISING is higher than the one before.
RISING = ("salt", "bake knife zz", "door beta door")
CALM = ("hi there", "what now", "zz top q")
# Read joined it is higher than as it is, where its first turn is the highest.
SPLIT = ("zz bake bake", "hello door hello", "beta there", "steal now knife")
LOUD = "now zz door door"
THRESHOLD = 0.2
ESCALATION = (
    '[[threshold]]\nname = "escalation"\nmeasure = "trajectory"\nthreshold = 0.2\nseverity = "warning"\n'
    'per = ["tenant", "conversation"]\n'
)
NEW_ONLY = "new_turns_only = true\n"
OF_SCORES = '[[threshold]]\nname = "of-scores"\n'


@pytest.fixture(scope="module")
def probe(chat: ChatModel) -> Probe:
    """It reads turns, and flags nothing."""
    return make_probe(chat, threshold=1e6, aggregation="max_rolling_mean(4, user)")


def talk(message_id: str, said: tuple[str, ...], conversation: str = "talk") -> dict[str, Any]:
    """The user's turns with an answer to each but the last."""
    turns = [{"role": "user", "content": said[0]}]
    for each in said[1:]:
        turns += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": each}]
    return wire(message_id, None, messages=turns, tenant="shop", conversation_id=conversation)


def run(engine: Engine, chat: ChatModel, probe: Probe, folder: Path, messages: list[dict[str, Any]], toml: str) -> Run:
    return run_worker(engine, chat, [probe], lines(folder / "t", messages), rules=rules(toml).threshold)


def score_rows(engine: Engine) -> dict[str, dict[str, Any]]:
    """Rows of `scores` by the id of the message."""
    ids = {row["offset"]: str(row["message_id"]) for row in stored(engine, schema.messages)}
    return {ids[row["offset"]]: row for row in stored(engine, schema.scores)}


def alerted(engine: Engine) -> list[str]:
    """The ids of the messages that alerts have."""
    return sorted(str(row["message_id"]) for row in stored(engine, schema.alert_messages))


def test_turns_alert_where_no_score_is_flagged(engine: Engine, chat: ChatModel, probe: Probe, tmp_path: Path) -> None:
    messages = [talk("calm", CALM, "other"), talk("rising", RISING), wire("loud", LOUD, tenant="shop")]
    found = run(engine, chat, probe, tmp_path, messages, ESCALATION + OF_SCORES)
    rows = score_rows(engine)
    assert [row["flagged"] for row in rows.values()] == [False] * 3
    assert rows["rising"]["trajectory"] > THRESHOLD > rows["calm"]["trajectory"]
    # A message of one turn has no turns to measure, however high its score, and whatever else is in the batch.
    assert rows["loud"]["score"] > THRESHOLD
    assert rows["loud"]["trajectory"] is None
    (alert,) = all_alerts(engine)
    assert (alert.rule, alert.dedup_key, alert.severity) == ("escalation", "escalation:drift:shop:talk", "warning")
    assert (alert.count, alert.conversation_id, alert.units) == (1, "talk", "class gaps over turns")
    assert alert.top_score == pytest.approx(rows["rising"]["trajectory"])
    assert alert.threshold == THRESHOLD
    assert alerted(engine) == ["rising"]
    (event,) = all_outbox(engine)
    top = event.body["data"]["top_message"]
    assert (event.event, top["id"], top["turn"], top["turn_new"]) == ("alert.opened", "rising", 4, True)
    assert [opened.event for opened in found.opened] == ["alert.opened"]
    assert (found.tally.flagged, found.tally.alerts) == (0, 1)


def test_the_length_of_the_path_is_a_measure_of_its_own(
    engine: Engine, chat: ChatModel, probe: Probe, tmp_path: Path
) -> None:
    toml = ESCALATION.replace("trajectory", "path_length").replace("0.2", "0.6")
    run(engine, chat, probe, tmp_path, [talk("calm", CALM, "other"), talk("rising", RISING)], toml)
    rows = score_rows(engine)
    assert rows["rising"]["path_length"] > 0.6 > rows["calm"]["path_length"]
    (alert,) = all_alerts(engine)
    assert alert.top_score == pytest.approx(rows["rising"]["path_length"])
    assert alert.units == "class gaps from turn to turn"
    assert alerted(engine) == ["rising"]


@pytest.mark.parametrize(("more", "told"), [("", ["again", "rising"]), (NEW_ONLY, ["rising"])])
def test_history_is_passed_over_where_the_rule_says_so(
    engine: Engine, chat: ChatModel, probe: Probe, tmp_path: Path, more: str, told: list[str]
) -> None:
    """The next message of the conversation brings its turns again, and they are as high as before."""
    messages = [talk("rising", RISING), talk("again", (*RISING, "hello"))]
    run(engine, chat, probe, tmp_path, messages, ESCALATION + more)
    rows = score_rows(engine)
    assert {name: row["turn_new"] for name, row in rows.items()} == {"rising": True, "again": False}
    assert rows["again"]["top_turn"] == rows["rising"]["top_turn"] == 4
    assert min(row["trajectory"] for row in rows.values()) > THRESHOLD
    assert alerted(engine) == told
    assert [alert.count for alert in all_alerts(engine)] == [len(told)]


def test_a_request_that_is_split_over_turns_is_not_taken_for_history(
    engine: Engine, chat: ChatModel, probe: Probe, tmp_path: Path
) -> None:
    """Its highest turn came before; what decided is all of them together, the new one too."""
    run(engine, chat, probe, tmp_path, [talk("split", SPLIT)], ESCALATION.replace("0.2", "0.1") + NEW_ONLY)
    row = score_rows(engine)["split"]
    assert row["reading"] == "joined"
    assert max(row["turn_scores"][::2]) == row["turn_scores"][0] < row["score"]
    assert (row["top_turn"], row["turn_new"]) == (None, None)
    assert row["trajectory"] > 0.1
    assert alerted(engine) == ["split"]
    assert all_alerts(engine)[0].top_message["reading"] == "joined"


def test_a_rule_in_shadow_counts_what_it_would_have_opened(
    engine: Engine, chat: ChatModel, probe: Probe, tmp_path: Path
) -> None:
    labels = {"probe": "drift", "severity": "warning", "result": "would_alert"}
    before = metrics.REGISTRY.get_sample_value("awry_alerts_total", labels) or 0
    run(
        engine,
        chat,
        probe,
        tmp_path,
        [talk("calm", CALM, "other"), talk("rising", RISING)],
        ESCALATION + "shadow = true",
    )
    assert metrics.REGISTRY.get_sample_value("awry_alerts_total", labels) == before + 1
    assert all_alerts(engine) == []
