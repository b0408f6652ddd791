"""What every dashboard must have: descriptions, units, uids, links that lead somewhere; and the committed files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from alerts.dashboards import dashboards, provisioning
from alerts.dashboards.board import SCHEMA_VERSION
from alerts.dashboards.panels import Json
from alerts.dashboards.provisioning import DASHBOARDS, files, write
from alerts.errors import GrafanaError
from benchmarks.grafana_macros import View, expanded
from monitor.cli.app import app
from tests.support import ROOT
from tests.support.web.dashboard_rows import SINCE, UNTIL

DEPLOYED = ROOT / "deploy" / "grafana"
BOARDS = list(dashboards().values())
PANELS = [pytest.param(b, p, id=f"{b['uid']}/{p['title']}") for b in BOARDS for p in b["panels"]]
# Ids of Grafana's units (@grafana/data, valueFormats/categories), of those that are used; `suffix:` is one's own.
UNITS = {"none", "short", "percentunit", "s", "bytes", "mps", "ops", "dateTimeFromNow", "dateTimeAsLocal"}


def test_the_four_dashboards_have_their_uids() -> None:
    assert list(dashboards()) == ["awry-overview", "awry-probe", "awry-investigate", "awry-worker"]
    assert len({b["title"] for b in BOARDS}) == 4
    assert {b["schemaVersion"] for b in BOARDS} == {SCHEMA_VERSION}
    assert all("id" not in b for b in BOARDS), "an id is Grafana's to give"


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_every_panel_says_what_it_shows_and_in_which_unit(board: Json, panel: Json) -> None:
    assert len(panel["description"]) > 20
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    properties = [p for o in panel["fieldConfig"]["overrides"] for p in o["properties"] if p["id"] == "unit"]
    for unit in (defaults["unit"], *(p["value"] for p in properties)):
        assert unit in UNITS or unit.startswith("suffix: "), unit
    assert panel["targets"]
    assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"])
    assert {t["datasource"]["uid"] for t in panel["targets"]} <= {"awry-postgres", "awry-prometheus"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b["uid"])
def test_panels_fill_the_screen_and_do_not_overlap(board: Json) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    bottom = max(y for _, y in taken) + 1
    assert len(taken) == 24 * bottom, "a hole"
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])
    assert len({p["title"] for p in board["panels"]}) == len(board["panels"])
    if board["uid"] == "awry-overview":
        # A row is 38 pixels: on a screen of 1080 about 28 of them are seen.
        assert bottom <= 28


def links(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("url"), str) and value["url"].startswith("/d/"):
            yield value["url"]
        for one in value.values():
            yield from links(one)
    elif isinstance(value, list):
        for one in value:
            yield from links(one)


def test_links_lead_to_dashboards_that_exist_and_set_variables_that_they_have() -> None:
    variables = {uid: {v["name"] for v in b["templating"]["list"]} for uid, b in dashboards().items()}
    found = [url for board in BOARDS for url in links(board)]
    assert len(found) > 15
    for url in found:
        match = re.fullmatch(r"/d/([a-z-]+)/\1\?\$\{__url_time_range\}&var-(\w+)=.+", url)
        assert match is not None, url
        assert match[2] in variables[match[1]], url
    for board in BOARDS:
        (bar,) = board["links"]
        assert (bar["type"], bar["tags"], bar["includeVars"], bar["keepTime"]) == ("dashboards", ["awry"], True, True)
        assert "awry" in board["tags"]


def test_variables_for_tenant_model_and_probe_mean_the_same_everywhere() -> None:
    by_name: dict[str, set[str]] = {}
    for board in BOARDS:
        names = [v["name"] for v in board["templating"]["list"]]
        assert len(set(names)) == len(names)
        if board["uid"] != "awry-worker":
            assert {"tenant", "model", "probe"} <= set(names)
        for variable in board["templating"]["list"]:
            assert variable["description"]
            by_name.setdefault(variable["name"], set()).add(str(variable["query"]))
    assert all(len(queries) == 1 for queries in by_name.values())


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b["uid"])
def test_every_variable_is_known_and_used(board: Json) -> None:
    queries = json.dumps([p["targets"] for p in board["panels"]] + [v["query"] for v in board["templating"]["list"]])
    used = set(re.findall(r"\$\{(\w+)(?::\w+)?\}", queries)) - {"__url_time_range"}
    assert used == {v["name"] for v in board["templating"]["list"]}
    # Whoever types into a box stays within a string; a list of values is always quoted.
    assert set(re.findall(r"\$\{(?!__)\w+(?::(\w+))?\}", queries)) <= {"sqlstring", "regex"}


def test_the_committed_files_are_up_to_date() -> None:
    kept = {str(p.relative_to(DEPLOYED)): p.read_text() for p in DEPLOYED.rglob("*") if p.is_file()}
    made = files()
    assert set(kept) == set(made), "run: awry grafana write deploy/grafana"
    stale = [name for name, body in made.items() if kept[name] != body]
    assert stale == [], "run: awry grafana write deploy/grafana"


def test_the_same_code_makes_the_same_files() -> None:
    assert files() == files()
    for name, body in files().items():
        if name.endswith(".json"):
            assert json.loads(body)["uid"] == Path(name).stem


def test_write_writes_what_differs(tmp_path: Path) -> None:
    assert len(write(tmp_path)) == len(files())
    assert write(tmp_path) == []
    (tmp_path / "dashboards" / "awry-probe.json").write_bytes(b"\xff changed by hand")
    (tmp_path / "dashboards" / "awry-worker.json").write_text("{}")
    (tmp_path / "dashboards" / "mine.json").write_text("{}")
    with pytest.raises(GrafanaError, match=r"cannot write .*awry-probe.json"):
        write(tmp_path)
    (tmp_path / "dashboards" / "awry-probe.json").unlink()
    done = CliRunner().invoke(app, ["grafana", "write", str(tmp_path)])
    assert done.exit_code == 0
    assert done.output.count("awry: wrote") == 2
    assert (tmp_path / "dashboards" / "mine.json").read_text() == "{}"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GrafanaError, match="choose another folder"):
        write(tmp_path / "file")


def provisioned(name: str) -> Any:
    return yaml.safe_load(files()[f"provisioning/{name}"])


def test_the_provider_finds_the_dashboards_where_compose_mounts_them() -> None:
    (provider,) = provisioned("dashboards/awry.yml")["providers"]
    grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    mounts = dict(v.split(":")[:2] for v in grafana["volumes"] if v.startswith("./"))
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"] == DASHBOARDS
    for kind in ("datasources", "dashboards", "alerting"):
        assert mounts[f"./deploy/grafana/provisioning/{kind}"] == f"/etc/grafana/provisioning/{kind}"
    assert (provider["type"], provider["folderUid"]) == ("file", "awry")


# The fields that Grafana's provisioning reader knows (pkg/services/provisioning/alerting/rules_types.go).
RULE = {
    "uid",
    "title",
    "condition",
    "data",
    "dashboardUid",
    "panelId",
    "noDataState",
    "execErrState",
    "for",
    "keepFiringFor",
    "annotations",
    "labels",
    "isPaused",
    "notification_settings",
}
QUERY = {"refId", "queryType", "relativeTimeRange", "datasourceUid", "model"}


def test_the_alert_rules_are_what_grafana_reads(production: Engine) -> None:
    (group,) = provisioned("alerting/awry.yml")["groups"]
    assert set(group) == {"orgId", "name", "folder", "interval", "rules"}
    panels = {uid: {p["id"] for p in b["panels"]} for uid, b in dashboards().items()}
    assert len({r["uid"] for r in group["rules"]}) == len(group["rules"]) == 4
    for rule in group["rules"]:
        assert set(rule) <= RULE
        assert len(rule["uid"]) <= 40
        assert rule["condition"] in {d["refId"] for d in rule["data"]}
        assert rule["panelId"] in panels[rule["dashboardUid"]]
        # What an outage of the data source must not do: page once a rule.
        assert (rule["noDataState"], rule["execErrState"]) == ("KeepLast", "KeepLast")
        assert re.fullmatch(r"\d+[sm]", rule["for"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        # Grafana replaces $NAME in labels by the environment's; in annotations and models it does not.
        assert "$" not in json.dumps(rule["labels"])
        for data in rule["data"]:
            assert set(data) <= QUERY
            if "rawSql" in data["model"]:
                with production.connect() as connection:
                    (row,) = connection.execute(text(expanded(data["model"]["rawSql"], BOARDS[0], View(SINCE, UNTIL))))
                assert len(row) == 1
                assert isinstance(row[0], float)


def test_a_rule_fires_when_it_should(production: Engine, engine: Engine) -> None:
    (group,) = provisioned("alerting/awry.yml")["groups"]
    queries = {r["uid"]: r["data"][0]["model"].get("rawSql") for r in group["rules"]}
    limits = {r["uid"]: r["data"][1]["model"]["conditions"][0]["evaluator"] for r in group["rules"]}
    with engine.connect() as connection:
        # A database that nobody has rolled up is behind; nothing was given up in it.
        assert connection.execute(text(queries["awry-stale"])).scalar_one() > limits["awry-stale"]["params"][0]
        assert connection.execute(text(queries["awry-undelivered"])).scalar_one() == 0
    with production.connect() as connection:
        assert connection.execute(text(queries["awry-stale"])).scalar_one() < limits["awry-stale"]["params"][0]
        assert connection.execute(text(queries["awry-unacknowledged"])).scalar_one() == 0
        connection.execute(text("UPDATE alerts SET opened_at = now() - interval '16 minutes'"))
        assert connection.execute(text(queries["awry-unacknowledged"])).scalar_one() == 3
        connection.rollback()
    assert limits["awry-no-worker"] == {"type": "lt", "params": [1]}


def test_the_example_of_a_contact_point_is_no_file_that_grafana_reads() -> None:
    names = [n for n in files() if "contact" in n]
    assert names == ["provisioning/alerting/contact-points.yml.example"]
    (point,) = provisioned("alerting/contact-points.yml.example")["contactPoints"]
    (receiver,) = point["receivers"]
    assert {"uid", "type", "settings"} <= set(receiver)
    assert receiver["settings"]["url"].startswith("https://soc.example/")


def test_provisioning_files_hold_what_was_made_below_a_comment() -> None:
    made = {
        "datasources/awry.yml": provisioning._datasources(),
        "dashboards/awry.yml": provisioning._provider(),
        "alerting/awry.yml": provisioning._alerting(),
        "alerting/contact-points.yml.example": provisioning._contact_points(),
    }
    assert {f"provisioning/{name}" for name in made} == {name for name in files() if "provisioning" in name}
    for name, value in made.items():
        body = files()[f"provisioning/{name}"]
        assert provisioned(name) == value
        assert list(provisioned(name)) == list(value), "keys keep their order"
        assert body.startswith("# Made by: awry grafana write FOLDER.")
        assert not re.search(r"[:-] [&*]\w", body), "an alias"
