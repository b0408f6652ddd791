"""OCSF and ECS: golden files, and every event checked against the tables of the published schemas."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.formats import ecs, ocsf, render
from alerts.rules.model import SEVERITIES
from alerts.senders.base import Notification
from alerts.text import lines
from tests.support import ROOT
from tests.support.alerts.delivery import TOP_MESSAGE, full_notification

REF = ROOT / "tests" / "ref"
GOLDEN = Path(__file__).parent / "golden"
NAMES = ("alert.opened", "alert.worsened", "alert.reopened", "alert.acknowledged", "alert.resolved")


TEXT = {"messages": [{"role": "user", "content": "hello"}], "response": "there"}
BARE: dict[str, Any] = dict.fromkeys(
    (
        "probe",
        "tenant",
        "model",
        "conversation_id",
        "first_message",
        "top_message",
        "top_messages",
        "opened_at",
        "last_seen_at",
    )
)
CATALOGUED: dict[str, Any] = {
    "rule_id": "awry-threshold",
    "tags": ["AML.T0051.000", "AML.T0054", "T1059.001", "LLM01:2025", "team.soc"],
    "references": ["https://wiki.example/why"],
}
# Name of the golden file, and the event that is in it.
EVENTS: dict[str, Notification] = {
    **{name.removeprefix("alert."): full_notification(name) for name in NAMES},
    "monitor": full_notification(**BARE, rule="lag", kind="monitor", units="messages", dedup_key="lag", links={}),
    "with_text": full_notification(text=TEXT),
    "catalogued": full_notification(**CATALOGUED),
    "monitor_catalogued": full_notification(
        **BARE, **CATALOGUED, rule="lag", kind="monitor", units="messages", dedup_key="lag", links={}
    ),
}


@cache
def validator() -> Any:
    schema = json.loads((REF / "ocsf-detection-finding.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@cache
def ecs_fields() -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((REF / "ecs-fields.json").read_text())["fields"]
    return fields


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of an ECS document with its full name; below objects that ECS leaves open there are none."""
    if isinstance(value, dict) and ecs_fields().get(name, {}).get("type") not in ("object", "flattened", "nested"):
        for key, one in value.items():
            yield from leaves(one, f"{name}.{key}" if name else key)
    else:
        yield name, value


def fits(value: Any, kind: str) -> bool:
    """Whether a value is of a type of Elasticsearch's."""
    if kind in ("keyword", "match_only_text", "wildcard", "constant_keyword"):
        return isinstance(value, str)
    if kind == "date":
        return datetime.fromisoformat(value).tzinfo is not None
    if kind in ("long", "integer"):
        return type(value) is int
    if kind in ("float", "double", "scaled_float"):
        return type(value) is float
    if kind == "ip":
        return bool(ipaddress.ip_address(value))
    return kind in ("object", "flattened", "nested")


def check_ecs(document: dict[str, Any]) -> None:
    for name, value in leaves(document):
        assert name in ecs_fields(), f"{name} is no field of ECS"
        field = ecs_fields()[name]
        flat = field["type"] in ("flattened", "nested")
        assert flat or isinstance(value, list) == bool(field.get("array")), f"{name}: one value, or an array?"
        for one in value if isinstance(value, list) and not flat else [value]:
            assert fits(one, field["type"]), f"{name}: {one!r} is no {field['type']}"
            assert one in field.get("allowed", [one]), f"{name}: {one!r} is not allowed"
    for value in document["labels"].values():
        assert isinstance(value, str), "labels are keywords"


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("form", ["ocsf", "ecs"])
def test_golden(form: Any, name: str) -> None:
    """Made anew with AWRY_GOLDEN=write in the environment of pytest; read the difference then."""
    made = json.loads(render(EVENTS[name], form))
    path = GOLDEN / f"{name}.{form}.json"
    if _WRITE:
        path.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    assert made == json.loads(path.read_text())


_WRITE = os.environ.get("AWRY_GOLDEN") == "write"


@pytest.mark.parametrize(
    ("message", "written"),
    [
        (TOP_MESSAGE, "llm.traffic/3/1204"),
        (TOP_MESSAGE | {"sub": 2}, "llm.traffic/3/1204.2"),
        (TOP_MESSAGE | {"sub": 0, "source": "llm.traffic@2"}, "llm.traffic@2/3/1204"),
    ],
)
def test_coordinates_name_the_message_within_its_record(message: dict[str, Any], written: str) -> None:
    """Alerts of before have messages without a `sub`."""
    notification = full_notification(top_message=message)
    ocsf, ecs = (json.loads(render(notification, form)) for form in ("ocsf", "ecs"))
    assert ocsf["evidences"][0]["uid"] == written
    assert ocsf["unmapped"]["awry"]["top_message"] == message
    assert ecs["labels"]["top_message"] == written
    assert f"top message {written}" in lines(notification.body["data"])
    assert [e.message for e in validator().iter_errors(ocsf)] == []
    check_ecs(ecs)


@pytest.mark.parametrize("name", EVENTS)
def test_ocsf_is_what_its_schema_says(name: str) -> None:
    found = json.loads(render(EVENTS[name], "ocsf"))
    errors = [f"{list(e.absolute_path)}: {e.message}" for e in validator().iter_errors(found)]
    assert errors == []
    assert found["type_uid"] == found["class_uid"] * 100 + found["activity_id"]
    assert found["metadata"]["profiles"] == ["ai_operation"]


@pytest.mark.parametrize("name", EVENTS)
def test_ecs_has_only_fields_of_ecs(name: str) -> None:
    check_ecs(json.loads(render(EVENTS[name], "ecs")))


def test_what_a_rule_says_of_itself_is_where_a_siem_looks_for_it() -> None:
    found = json.loads(render(EVENTS["catalogued"], "ocsf"))
    info = found["finding_info"]
    assert [(a["technique"]["uid"], a.get("sub_technique", {}).get("uid")) for a in info["attacks"]] == [
        ("AML.T0051", "AML.T0051.000"),
        ("AML.T0054", None),
        ("T1059", "T1059.001"),
    ]
    assert info["attacks"][2]["sub_technique"]["src_url"] == "https://attack.mitre.org/techniques/T1059/001/"
    assert info["tags"] == [
        {"name": "owasp_llm", "values": ["LLM01:2025"]},
        {"name": "tags", "values": ["team.soc"]},
    ]
    assert [each["uid"] for each in info["related_analytics"]] == ["awry-threshold"]
    assert "https://wiki.example/why" in found["remediation"]["references"]
    of_monitor = json.loads(render(EVENTS["monitor_catalogued"], "ocsf"))["finding_info"]
    assert of_monitor["analytic"]["uid"] == "awry-threshold", "what decided is the rule itself"

    document = json.loads(render(EVENTS["catalogued"], "ecs"))
    assert document["rule"]["id"] == "awry-threshold"
    assert document["rule"]["reference"] == "https://wiki.example/threshold"
    assert document["labels"]["references"] == "https://wiki.example/why"
    assert document["threat"]["framework"] == "MITRE ATLAS"
    assert document["threat"]["technique"]["id"] == ["AML.T0051", "AML.T0054"]
    assert document["threat"]["technique"]["subtechnique"]["id"] == ["AML.T0051.000"]
    assert document["tags"] == ["T1059.001", "LLM01:2025", "team.soc"]


def test_the_versions_are_those_of_the_tables() -> None:
    title = json.loads((REF / "ocsf-detection-finding.schema.json").read_text())["title"]
    assert ocsf.VERSION in title
    readme = (REF / "README.md").read_text()
    assert f"Elastic Common Schema {ecs.VERSION}" in readme


def test_the_checks_would_say_something() -> None:
    good = json.loads(render(full_notification(), "ocsf"))
    for bad in ({"severity_id": 9}, {"oops": 1}, {"time": "today"}, {"ai_model": {"name": "smol"}}):
        assert list(validator().iter_errors(good | bad))
    document = json.loads(render(full_notification(), "ecs"))
    for more in ({"event": {"kind": "page"}}, {"oops": 1}, {"event": {"severity": "high"}}, {"labels": {"n": 1}}):
        with pytest.raises(AssertionError):
            check_ecs(document | more)


def test_an_alert_is_one_finding_from_its_opening_to_its_end() -> None:
    found = [json.loads(render(full_notification(name), "ocsf")) for name in NAMES]
    assert len({f["finding_info"]["uid"] for f in found}) == 1
    assert [(f["activity_name"], f["status"]) for f in found] == [
        ("Create", "New"),
        ("Update", "New"),
        ("Update", "New"),
        ("Update", "In Progress"),
        ("Close", "Resolved"),
    ]
    assert [json.loads(render(full_notification(name), "ecs"))["event"]["type"] for name in NAMES] == [
        ["start"],
        ["change"],
        ["change"],
        ["change"],
        ["end"],
    ]


@pytest.mark.parametrize("form", ["ocsf", "ecs"])
def test_text_is_there_only_when_the_notification_has_it(form: Any) -> None:
    assert "hello" not in render(full_notification(), form)
    with_text = render(full_notification(text=TEXT), form)
    assert "hello" in with_text
    assert "there" in with_text


names = st.text(max_size=60)


@given(names, names, st.sampled_from(SEVERITIES), st.floats(-50, 50), st.integers(1, 10**9), st.sampled_from(NAMES))
def test_whatever_comes_out_of_traffic_fits_both(
    tenant: str, model: str, severity: str, score: float, count: int, name: str
) -> None:
    top = {**TOP_MESSAGE, "source": tenant or "-", "id": model or None}
    one = full_notification(
        name, tenant=tenant, model=model, severity=severity, score=score, count=count, top_message=top
    )
    assert not list(validator().iter_errors(json.loads(render(one, "ocsf"))))
    check_ecs(json.loads(render(one, "ecs")))
