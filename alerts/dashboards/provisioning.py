"""Grafana's provisioning files: data sources, dashboards, alert rules, an example of a contact point.

Contract: `files()` is every file by its path below a folder; `write(folder)` writes those that differ and returns their
paths. deploy/grafana holds the output for docker-compose.yml, where the hosts are its services and passwords come from
the environment. Fixed uids throughout, so that a second start changes nothing.

The alert rules cover what awry cannot notify itself, or what matters when nobody acknowledges its alerts; rules on
metrics alone are Prometheus's (deploy/prometheus). While a data source does not respond the rules keep their last
state: otherwise an outage of the database would fire all of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from alerts.dashboards.board import FOLDER, FOLDER_UID, OVERVIEW, WORKER
from alerts.dashboards.panels import POSTGRES, PROMETHEUS, Json
from alerts.errors import GrafanaError

GENERATED = "Made by: awry grafana write FOLDER. Changes here are lost with the next one."
# Where docker-compose.yml mounts the dashboards.
DASHBOARDS = "/etc/awry/dashboards"

_NO_WRAPPING = 1_000_000


def files() -> dict[str, str]:
    """The text of each file, by path."""
    from alerts.dashboards import dashboards

    boards = {f"dashboards/{uid}.json": json.dumps(board, indent=1) + "\n" for uid, board in dashboards().items()}
    return boards | {
        "provisioning/datasources/awry.yml": _document(
            _datasources(), f"{GENERATED}\nDashboards name these uids. Secrets come from Grafana's environment."
        ),
        "provisioning/dashboards/awry.yml": _document(_provider(), GENERATED),
        "provisioning/alerting/awry.yml": _document(_alerting(), GENERATED),
        "provisioning/alerting/contact-points.yml.example": _document(
            _contact_points(),
            f"{GENERATED}\nCopy it to contact-points.yml with an address of your own: Grafana reads only names in "
            ".yml.\nThen send awry's rules there, under Alerting, Notification policies: team = awry.",
        ),
    }


def write(folder: Path) -> list[Path]:
    """Write the files that are missing or differ. Raises GrafanaError."""
    written = []
    for name, text in files().items():
        path = folder / name
        try:
            if path.is_file() and path.read_text() == text:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except (OSError, UnicodeDecodeError) as error:
            raise GrafanaError(f"cannot write {path} ({error}); choose another folder") from error
        written.append(path)
    return written


def _document(value: Json, comment: str) -> str:
    """YAML with a comment at its head. By way of JSON, since PyYAML writes an object that occurs twice as an alias."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    separate = json.loads(json.dumps(value))
    text: str = yaml.safe_dump(separate, sort_keys=False, allow_unicode=True, width=_NO_WRAPPING)
    return head + text


def _datasources() -> Json:
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "awry Prometheus",
                **PROMETHEUS,
                "access": "proxy",
                "url": "http://prometheus:9090",
                "isDefault": True,
                "editable": False,
                "jsonData": {"timeInterval": "15s", "httpMethod": "POST"},
            },
            {
                "name": "awry PostgreSQL",
                **POSTGRES,
                "access": "proxy",
                "url": "postgres:5432",
                "user": "awry_grafana",
                "editable": False,
                "secureJsonData": {"password": "$__env{GRAFANA_DATABASE_PASSWORD}"},
                "jsonData": {
                    "database": "awry",
                    "sslmode": "disable",
                    "postgresVersion": 1800,
                    "timescaledb": False,
                    "maxOpenConns": 10,
                    "maxIdleConns": 2,
                    "connMaxLifetime": 14400,
                },
            },
        ],
    }


def _provider() -> Json:
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "awry",
                "orgId": 1,
                "folder": FOLDER,
                "folderUid": FOLDER_UID,
                "type": "file",
                "disableDeletion": False,
                "allowUiUpdates": False,
                "updateIntervalSeconds": 60,
                "options": {"path": DASHBOARDS},
            }
        ],
    }


def _alerting() -> Json:
    rules = [
        _rule(
            "awry-unacknowledged",
            "awry: a critical alert that nobody has acknowledged",
            "critical",
            "SELECT count(*)::float8 AS alerts FROM alerts WHERE state = 'open' AND severity = 'critical' "
            "AND opened_at < now() - interval '15 minutes'",
            0,
            "0s",
            "{{ $values.A.Value }} critical alerts are open for over 15 minutes",
            "Nobody has acknowledged the notification. Acknowledge the alert with awry alerts ack, or silence it.",
            OVERVIEW,
        ),
        _rule(
            "awry-undelivered",
            "awry: deliveries given up",
            "critical",
            "SELECT count(*)::float8 AS deliveries FROM outbox WHERE dead_at > now() - interval '1 hour'",
            0,
            "0s",
            "{{ $values.A.Value }} deliveries were given up in the last hour",
            "A destination failed until the last attempt: awry outbox list shows the reason.",
            WORKER,
        ),
        _rule(
            "awry-stale",
            "awry: dashboards are behind",
            "warning",
            "SELECT extract(epoch FROM now() - greatest(until, at - interval '1 year'))::float8 AS age "
            "FROM rollup_state",
            900,
            "5m",
            "The newest score on the dashboards is {{ $values.A.Value }} s old",
            "No worker, awry send or awry serve has rolled up scores: none of them runs, or a transaction has been "
            "open for as long (pg_stat_activity).",
            OVERVIEW,
        ),
        _rule(
            "awry-no-worker",
            "awry: no worker runs",
            "critical",
            'sum(up{job="awry-run"}) or vector(0)',
            None,
            "5m",
            "Prometheus scrapes no worker",
            "Nothing is scored. Messages older than the topic's retention are lost to awry.",
            WORKER,
        ),
    ]
    group = {"orgId": 1, "name": "awry", "folder": "awry alerts", "interval": "1m", "rules": rules}
    return {"apiVersion": 1, "groups": [group]}


def _rule(
    uid: str,
    title: str,
    severity: str,
    query: str,
    above: float | None,
    wait: str,
    summary: str,
    description: str,
    dashboard: str,
) -> Json:
    """Fires when the SQL query's one value is above `above`, or a PromQL query's (`above` None) below 1."""
    source = POSTGRES if above is not None else PROMETHEUS
    model: Json = {"refId": "A", "datasource": source, "intervalMs": 60000, "maxDataPoints": 100}
    if above is not None:
        model |= {"format": "table", "rawQuery": True, "editorMode": "code", "rawSql": query}
    else:
        model |= {"expr": query, "instant": True, "range": False, "editorMode": "code"}
    expression = {"type": "__expr__", "uid": "__expr__"}
    evaluator: dict[str, Any] = {"type": "lt", "params": [1]} if above is None else {"type": "gt", "params": [above]}
    threshold = {
        "refId": "B",
        "datasource": expression,
        "type": "threshold",
        "expression": "A",
        "conditions": [{"evaluator": evaluator}],
    }
    span = {"from": 600, "to": 0}
    return {
        "uid": uid,
        "title": title,
        "condition": "B",
        "data": [
            {"refId": "A", "relativeTimeRange": span, "datasourceUid": source["uid"], "model": model},
            {"refId": "B", "relativeTimeRange": span, "datasourceUid": "__expr__", "model": threshold},
        ],
        "for": wait,
        "noDataState": "KeepLast",
        "execErrState": "KeepLast",
        "dashboardUid": dashboard,
        "panelId": 1,
        "annotations": {"summary": summary, "description": description},
        "labels": {"severity": severity, "team": "awry"},
        "isPaused": False,
    }


def _contact_points() -> Json:
    receiver = {
        "uid": "awry-soc",
        "type": "webhook",
        "disableResolveMessage": False,
        "settings": {"url": "https://soc.example/hooks/grafana", "httpMethod": "POST"},
    }
    return {"apiVersion": 1, "contactPoints": [{"orgId": 1, "name": "awry on-call", "receivers": [receiver]}]}
