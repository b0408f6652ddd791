"""Every SQL of the dashboards on a real PostgreSQL with real rows, as Grafana would send it, and its columns."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from alerts.dashboards import dashboards
from alerts.dashboards.panels import Json
from benchmarks.grafana_macros import ALL, View, expanded, targets
from storage.rollup import roll_up
from storage.writer import BatchRows, ScoreRow, register_probe, write_batch
from tests.support.rows import at, message
from tests.support.web.dashboard_rows import DRIFT as FIRST
from tests.support.web.dashboard_rows import LOUD, NOW, QUIET, SINCE, TEXT, UNTIL, card, write_production

POSTGRES = "grafana-postgresql-datasource"
QUERIES = [
    pytest.param(board, panel, target, id=f"{board['uid']}/{panel['title']}/{target['refId']}")
    for board in dashboards().values()
    for panel, target in targets(board, POSTGRES)
]
DRIFT = {"probe": "drift", "version": "1"}
CHOICES: dict[str, dict[str, Any]] = {
    "as it opens": {},
    "one of each": {"tenant": ["shop"], "model": ["tiny"], "probe": ["drift"], "version": "1"},
    "those that name none": {"tenant": [""], "model": [""], "probe": ["drift", "heads"], "version": "1"},
    "a message": {"message": "loud-0", **DRIFT},
    "coordinates": {"message": "topic/0/61", **DRIFT},
    "coordinates within a record": {"message": "topic/0/60.1", **DRIFT},
    "a conversation": {"conversation": "talk-1", **DRIFT},
    "an alert that does not exist": {"alert": "00000000-0000-0000-0000-000000000000", **DRIFT},
    "no id of an alert": {"alert": "00000000-0000-0000-0000-00000000000", **DRIFT},
    "what does not exist": {"tenant": ["nobody"], "model": ["x"], "probe": "x", "version": "x", "message": "a/9/9"},
    "what would break out": dict.fromkeys(
        ("tenant", "model", "probe", "version", "message", "conversation", "alert"), "a'; --"
    ),
    "numbers too large": {"message": "a/" + "9" * 30 + "/" + "9" * 30, **DRIFT},
    "a place in its record too large": {"message": "topic/0/60." + "9" * 30, **DRIFT},
}


def rows(engine: Engine, board: Json, panel: Json, target: Json, chosen: dict[str, Any]) -> list[dict[str, Any]]:
    """What the data source answers, in a transaction that may not write."""
    query = expanded(target["rawSql"], board, View(SINCE, UNTIL, chosen), panel.get("interval"))
    with engine.connect() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        # As the text that it is: a colon in it is no parameter of ours.
        found = connection.exec_driver_sql(query.replace("%", "%%"), ())
        return [dict(r) for r in found.mappings()]


def asked(engine: Engine, uid: str, title: str, chosen: dict[str, Any], ref: str = "A") -> list[dict[str, Any]]:
    board = dashboards()[uid]
    for panel, target in targets(board, POSTGRES):
        if (panel["title"], target["refId"]) == (title, ref):
            return rows(engine, board, panel, target, chosen)
    raise AssertionError(f"{uid} has no panel {title}")


@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize(("board", "panel", "target"), QUERIES)
def test_it_runs_whatever_is_chosen(
    production: Engine, board: Json, panel: Json, target: Json, chosen: dict[str, Any]
) -> None:
    rows(production, board, panel, target, chosen)


@pytest.mark.parametrize(("board", "panel", "target"), QUERIES)
def test_its_columns_are_what_the_panel_shows(production: Engine, board: Json, panel: Json, target: Json) -> None:
    chosen = {"message": "loud-0"} if board["uid"] == "awry-investigate" else {}
    chosen |= {"probe": "heads", "version": "2"} if panel["title"] == "Heads" else {}
    chosen |= DRIFT if board["uid"] == "awry-probe" and not chosen else {}
    found = rows(production, board, panel, target, chosen)
    assert found, "no rows to look at"
    names = list(found[0])
    assert len(set(names)) == len(names)
    if target["format"] == "time_series" or panel["type"] == "heatmap":
        assert names[0] == "time"
        values = [n for n in names[1:] if n != "metric"]
        assert values
        assert all(isinstance(r[n], (int, float)) or r[n] is None or n in numeric(found) for r in found for n in values)
        assert [r["time"] for r in found] == sorted(r["time"] for r in found)
    if panel["type"] == "stat":
        assert len(found) == 1
        assert len(names) == 1
        assert found[0][names[0]] is not None
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["id"] == "byName" and "\\" not in override["matcher"]["options"]:
            assert override["matcher"]["options"] in names
    for change in panel.get("transformations", []):
        assert {change["options"][f"{part}Field"] for part in ("row", "column", "value")} <= set(names)
    if panel["type"] == "barchart":
        assert panel["options"]["xField"] in names


def numeric(found: list[dict[str, Any]]) -> set[str]:
    """Columns whose values are numbers of PostgreSQL's own kind."""
    from decimal import Decimal

    return {n for n in found[0] if all(r[n] is None or isinstance(r[n], Decimal) for r in found)}


def test_variables_and_annotations_run_too(production: Engine) -> None:
    for board in dashboards().values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query" and variable["datasource"]["type"] == POSTGRES:
                found = rows(production, board, {}, {"rawSql": variable["query"]}, DRIFT)
                assert found, variable["name"]
                if variable["name"] == "tenant":
                    texts = [(r["__text"], r["__value"]) for r in found]
                    assert texts == [("(none)", ""), ("bank", "bank"), ("shop", "shop")]
        for annotation in board["annotations"]["list"]:
            found = rows(production, board, {}, annotation["target"], DRIFT)
            assert [r["text"] for r in found if "drift" in r["text"]] == ["probe drift version 1, threshold 0.5000"]


def test_the_overview_says_what_happened(production: Engine) -> None:
    (flagged,) = asked(production, "awry-overview", "Flagged", {"probe": ["drift"]})
    assert flagged["flagged"] == pytest.approx(LOUD / (QUIET + LOUD))
    (critical,) = asked(production, "awry-overview", "Critical open", {})
    (other,) = asked(production, "awry-overview", "Other open", {})
    assert (critical["open"], other["open"]) == (3, 0)
    tenants = asked(production, "awry-overview", "Worst tenants", {"probe": ["drift"]})
    assert tenants[0]["tenant"] == "shop"
    assert all(r["at_least"] < r["share"] for r in tenants)
    alerts = asked(production, "awry-overview", "Alerts that are not resolved", {"tenant": ["shop"]})
    assert [(r["tenant"], r["count"], r["top_message"]) for r in alerts] == [("shop", 10, "loud-9")]
    (age,) = asked(production, "awry-overview", "Data as of", {})
    assert 0 < age["age"] < 3600
    everything = asked(production, "awry-overview", "Flagged share", {})
    assert {r["metric"] for r in everything} == {"drift", "heads"}
    assert max(float(r["value"]) for r in everything) == 1


def test_the_probe_board_measures_the_shift(production: Engine) -> None:
    (drift,) = asked(production, "awry-probe", "Distance in the range", DRIFT)
    # A sixth of the scores lies above all benign ones.
    assert drift["drift"] == pytest.approx(LOUD / (QUIET + LOUD), abs=0.03)
    steps = asked(production, "awry-probe", "Quantiles and threshold", DRIFT)
    assert any(r["95 %"] is not None and float(r["95 %"]) > 1 for r in steps)
    shares = asked(production, "awry-probe", "Against the calibration", DRIFT)
    assert sum(r["traffic"] for r in shares) == pytest.approx(1)
    assert sum(r["calibration"] for r in shares) == pytest.approx(1)
    assert next(r for r in shares if r["score"] == "0.0")["calibration"] == pytest.approx(0.2)
    heads = asked(production, "awry-probe", "Heads", {"probe": "heads", "version": "2"})
    assert [(r["layer"], r["head"]) for r in heads] == [(0, 1), (0, 3), (2, 1)]
    rates = {r["false-positive rate"]: r for r in asked(production, "awry-probe", "False-positive rate", DRIFT)}
    upper = rates["traffic, if none is misaligned"]
    assert upper["share"] == pytest.approx(LOUD / (QUIET + LOUD))
    assert upper["low"] < upper["share"] < upper["high"]
    assert rates["traffic, by reviewed alerts"]["n"] == 2
    assert rates["target"]["share"] == 0.02
    over_time = asked(production, "awry-probe", "Scores over time", DRIFT)
    assert sum(sum(v or 0 for k, v in r.items() if k != "time") for r in over_time) == QUIET + LOUD


def test_one_message_is_found_by_its_id_and_by_its_coordinates(production: Engine) -> None:
    for name in ("loud-0", f"topic/0/{QUIET}"):
        (message,) = asked(production, "awry-investigate", "Messages", {"message": name})
        assert message["message"] == "loud-0"
        assert message["coordinates"] == f"topic/0/{QUIET}"
        assert message["over_threshold"] == pytest.approx(0.4)
        scores = asked(production, "awry-investigate", "Scores by probe", {"message": name})
        assert [(r["probe"], r["flagged"]) for r in scores] == [("drift", True), ("heads", False)]
        (answer,) = asked(production, "awry-investigate", "Mitigation, before and after", {"message": name})
        assert (answer["before"], answer["after"]) == ("the plain answer", "the mild answer")
        (alert,) = asked(production, "awry-investigate", "Alerts", {"message": name})
        assert (alert["tenant"], alert["probe"]) == ("shop", "drift")


def test_messages_of_one_record_are_apart(production: Engine) -> None:
    (second,) = asked(production, "awry-investigate", "Messages", {"message": f"topic/0/{QUIET}.1"})
    assert (second["message"], second["coordinates"]) == ("second", f"topic/0/{QUIET}.1")
    assert (second["format"], second["rendered"], second["partial"], second["special_tokens"]) == (
        "otel",
        "adapted",
        "media",
        3,
    )
    assert "system joined" in second["notes"]
    assert second["unread"] == '{"image": 2}'
    scores = asked(production, "awry-investigate", "Scores by probe", {"message": "second"})
    assert [round(r["score"], 1) for r in scores] == [-0.2]
    assert asked(production, "awry-investigate", "Mitigation, before and after", {"message": "second"}) == []
    assert asked(production, "awry-investigate", "Alerts", {"message": "second"}) == []


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("audit/2026.03@2/3/7.12", ["third"]),
        ("audit/2026.03@2/3/7", []),
        ("audit/2026.03/3/7.12", []),
        (f"topic/0/{QUIET}.0", ["loud-0"]),
        (f"topic/0/{QUIET}.2", []),
        (f"topic/0/{QUIET}.", []),
    ],
)
def test_coordinates_name_one_message(production: Engine, written: str, found: list[str]) -> None:
    """Also of a source with slashes, dots, and the number of a second log."""
    rows_found = asked(production, "awry-investigate", "Messages", {"message": written})
    assert [r["message"] for r in rows_found] == found


def test_what_was_not_read_whole(production: Engine) -> None:
    found = asked(production, "awry-worker", "Messages not read whole", {"tenant": ["shop"]})
    assert {r["partial"] for r in found} == {"length", "media"}
    assert f"topic/0/{QUIET}.1" in {r["coordinates"] for r in found}
    assert {r["windows"] for r in found if r["partial"] == "length"} == {4}


def test_text_is_shown_where_it_was_stored_and_nowhere_else(production: Engine) -> None:
    found = asked(production, "awry-investigate", "Messages", {})
    assert {r["message"] for r in found} == {f"loud-{n}" for n in range(LOUD)}
    assert [r["message"] for r in found if r["text"] is not None] == ["loud-0"]
    (shown,) = (r["text"] for r in found if r["text"])
    assert TEXT["prompt"] in shown


def test_a_conversation_and_a_tenant(production: Engine) -> None:
    talk = asked(production, "awry-investigate", "Messages", {"conversation": "talk-1"})
    assert {r["message"] for r in talk} == {"loud-0", "loud-1", "loud-2"}
    course = asked(production, "awry-investigate", "Course", {"conversation": "talk-1", "probe": ["drift"]})
    assert [round(r["value"], 1) for r in course] == [0.9, 1.0, 1.1]
    bank = asked(production, "awry-investigate", "Messages", {"tenant": ["bank"]})
    nameless = asked(production, "awry-investigate", "Messages", {"tenant": [""]})
    assert {r["tenant"] for r in bank} == {"bank"}
    assert {r["tenant"] for r in nameless} == {""}
    assert len(bank) == len(nameless) == 1


def test_an_alert_leads_to_the_messages_that_it_counted(production: Engine) -> None:
    (alert,) = asked(production, "awry-overview", "Alerts that are not resolved", {"tenant": ["bank"]})
    found = asked(production, "awry-investigate", "Messages", {"alert": alert["alert"]})
    assert [(r["message"], r["tenant"]) for r in found] == [(alert["top_message"], "bank")]
    (shop,) = asked(production, "awry-overview", "Alerts that are not resolved", {"tenant": ["shop"]})
    found = asked(production, "awry-investigate", "Messages", {"alert": shop["alert"].upper()})
    assert {r["message"] for r in found} == {f"loud-{n}" for n in range(10)}


def test_dead_letters(production: Engine) -> None:
    found = asked(production, "awry-worker", "Messages without a score", {"tenant": ALL})
    assert {r["status"] for r in found} == {"invalid", "failed", "skipped"}
    assert not asked(production, "awry-worker", "Messages without a score", {"tenant": ["bank"]})


def test_two_cards_of_one_probe_are_never_in_one_figure(engine: Engine) -> None:
    """Nor are the scores of before cards had digests: they are there, and compared with nothing."""
    write_production(engine)
    second = "2" * 32
    since = {"now": NOW, "then": NOW - timedelta(minutes=1), "second": second}
    with engine.begin() as connection:
        register_probe(connection, second, "drift", 2, "hash", card(threshold=2.0))
        later = [
            ScoreRow(at(n), "drift", 2, 1.5, 2.0, False, probe_digest=second, heads=((0, 0, 1.0),))
            for n in range(QUIET, QUIET + LOUD)
        ]
        before = [ScoreRow(at(n), "drift", 1, 0.25, 0.5, False, probe_digest="") for n in range(10)]
        known = [message(row.at.offset, f"{row.at.offset:064x}") for row in (*later, *before)]
        write_batch(connection, BatchRows(known, [*later, *before]))
        connection.execute(text("UPDATE scores SET created_at = :then WHERE probe_digest IN (:second, '')"), since)
        connection.execute(text("TRUNCATE rollup_state, score_rollups, score_histograms, head_rollups"))
        connection.execute(text("UPDATE probes SET registered_at = :now WHERE digest = :second"), since)
    while roll_up(engine) != 0:
        pass
    cards = (FIRST, second, "unknown 1")

    def of_cards(title: str, column: str) -> list[list[Any]]:
        chosen = ({"probe": "drift", "version": version} for version in cards)
        return [[row[column] for row in asked(engine, "awry-probe", title, each)] for each in chosen]

    assert of_cards("Scored", "scored") == [[QUIET + LOUD], [LOUD], [10]]
    assert of_cards("Threshold", "value") == [[0.5], [2.0], []]
    assert of_cards("Judged false", "false_alarms") == [[1.0], [None], [None]]
    first, *others = ({round(mean, 6) for mean in means} for means in of_cards("By tenant", "mean"))
    assert others == [{1.5}, {0.25}]
    assert not first & {1.5, 0.25}
    compared = of_cards("Against the calibration", "calibration")
    assert [sum(share or 0 for share in shares) for shares in compared] == [pytest.approx(1), pytest.approx(1), 0]
    assert [len(heads) for heads in of_cards("Heads", "head")] == [0, 1, 0]
    # A number, as in links of before, is the newest card of that version.
    for written, number in (("1", QUIET + LOUD), ("2", LOUD)):
        chosen: dict[str, Any] = {"probe": "drift", "version": written}
        assert asked(engine, "awry-probe", "Scored", chosen)[0]["scored"] == number
    (variable,) = (v for v in dashboards()["awry-probe"]["templating"]["list"] if v["name"] == "version")
    choices = rows(engine, dashboards()["awry-probe"], {}, {"rawSql": variable["query"]}, {"probe": "drift"})
    assert [(r["__text"], r["__value"]) for r in choices] == [
        (f"version 2, {second[:8]}", second),
        (f"version 1, {FIRST[:8]}", FIRST),
        ("version 1, digest unknown", "unknown 1"),
    ]
    shares = asked(engine, "awry-overview", "Flagged share", {"probe": ["drift"]})
    lines = {name: {float(r["value"]) for r in shares if r["metric"] == name} for name in {r["metric"] for r in shares}}
    assert set(lines) == {"drift", f"drift version 1, {FIRST[:8]}", "drift version 1, digest unknown"}
    # The first card's messages of these minutes are all flagged, the others none.
    assert max(lines[f"drift version 1, {FIRST[:8]}"]) == 1
    assert lines["drift"] == lines["drift version 1, digest unknown"] == {0}
    scores = asked(engine, "awry-investigate", "Scores by probe", {"message": "loud-3", "probe": ["drift"]})
    assert [(r["version"], r["digest"], r["score"]) for r in scores] == [
        (1, FIRST[:8], pytest.approx(1.2)),
        (2, second[:8], 1.5),
    ]
    course = asked(engine, "awry-investigate", "Course", {"message": "loud-3", "probe": ["drift"]})
    assert {r["metric"]: round(r["value"], 6) for r in course} == {"drift": 1.5, f"drift version 1, {FIRST[:8]}": 1.2}
    heads = asked(engine, "awry-investigate", "Heads", {"message": "loud-3", "probe": ["drift"]})
    assert [(r["layer"], r["head"], r["score"]) for r in heads] == [(0, 0, 1.0)]
