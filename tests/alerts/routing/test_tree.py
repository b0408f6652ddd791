"""Where alerts go: the tree by itself, and against amtool on the same tree."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from alerts.routing.routing import Routing, routing_of
from alerts.routing.tree import Route
from tests.conftest import needs_program

NAMES = ("chat", "oncall", "siem", "shop", "night")
TREE: dict[str, Any] = {
    "destinations": ["chat"],
    "routes": [
        {"matchers": ['severity=~"error|critical"'], "destinations": ["siem"], "continue": True},
        {
            "matchers": ['tenant="shop"'],
            "destinations": ["shop"],
            "routes": [
                {"matchers": ['severity="critical"', 'probe!~"trial-.*"'], "destinations": ["oncall"]},
                {"matchers": ["rule!=burst", 'tenant!=""'], "destinations": ["night"], "continue": True},
                {"matchers": ['model=""']},
            ],
        },
        {"matchers": ['tenant=~"a(b|c)+"', 'severity!="warning"'], "destinations": ["oncall"]},
        {"matchers": ['tenant=""'], "destinations": ["night"]},
        {"matchers": ['tenant=~".*say \\"hi\\".*"'], "destinations": ["oncall"]},
        {"matchers": ['model="smol"'], "destinations": ["siem"], "continue": True},
        {"matchers": ['rule="burst"'], "continue": True},
    ],
}


def routing(tree: dict[str, Any] = TREE) -> Routing:
    return routing_of(NAMES, Route.model_validate(tree))


def as_receivers(route: dict[str, Any]) -> dict[str, Any]:
    """The same tree as Alertmanager writes it."""
    written = {name: value for name, value in route.items() if name not in ("destinations", "routes")}
    if "destinations" in route:
        (written["receiver"],) = route["destinations"]
    if "routes" in route:
        written["routes"] = [as_receivers(child) for child in route["routes"]]
    return written


def in_order(found: Routing, labels: dict[str, str]) -> list[str]:
    return [name for node in found.routes(labels) for name in node.destinations]


def test_it_decides_as_amtool_does(tmp_path: Path) -> None:
    amtool = needs_program("amtool", "apt-get install prometheus-alertmanager")
    config = tmp_path / "alertmanager.yml"
    config.write_text(yaml.safe_dump({"route": as_receivers(TREE), "receivers": [{"name": n} for n in NAMES]}))
    found, compared, different = routing(), 0, set()
    tenants = ("shop", "abc", "abcx", "", "xabc", 'they say "hi" to', "shop\u00e9")
    cases = itertools.product(
        ("warning", "critical"), tenants, ("smol", ""), ("burst", "threshold"), ("drift", "trial-1")
    )
    for number, (severity, tenant, model, rule, probe) in enumerate(cases):
        if number % 2 and tenant != "shop":  # a process each: half of the others will do
            continue
        labels = {"alertname": "awry", "severity": severity, "rule": rule, "probe": probe}
        labels |= {name: value for name, value in (("tenant", tenant), ("model", model)) if value}
        written = [f'{name}="{value}"' if '"' not in value else f"{name}='{value}'" for name, value in labels.items()]
        if '"' in tenant:
            written = [f"{name}={value}".replace('"', '\\"') for name, value in labels.items() if name != "tenant"]
            written.append('tenant="they say \\"hi\\" to"')
        command = [amtool, "config", "routes", "test", f"--config.file={config}", *written]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert in_order(found, labels) == said.split(","), labels
        different.add(said)
        compared += 1
    assert compared > 60
    assert len(different) >= 8, "the cases tell routes apart"


def test_a_destination_is_told_once_whatever_number_of_routes_leads_there() -> None:
    found = routing().destinations({"severity": "error", "model": "smol", "rule": "burst", "tenant": "bank"})
    assert list(found) == ["siem", "chat"]
    assert found["siem"] == ['{}/{severity=~"error|critical"}', '{}/{model="smol"}']
    assert found["chat"] == ['{}/{rule="burst"}'], "a route without destinations has its parent's"


def test_what_no_route_matches_goes_to_the_root() -> None:
    assert routing().destinations({"severity": "warning", "tenant": "bank"}) == {"chat": ["{}"]}


def test_without_a_route_all_alerts_go_to_all_destinations() -> None:
    assert routing_of(NAMES, None).destinations({"severity": "warning"}) == {name: ["{}"] for name in NAMES}


def test_two_children_with_the_same_matchers_have_ids_of_their_own() -> None:
    twice = {"matchers": ['tenant="a"'], "continue": True}
    tree = {"destinations": ["chat"], "routes": [twice, twice]}
    assert [node.id for node in routing(tree).routes({"tenant": "a"})] == ['{}/{tenant="a"}', '{}/{tenant="a"}#1']


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "route.destinations: is missing"),
        ({"destinations": []}, "name at least one"),
        ({"destinations": ["chat"], "matchers": ['tenant="a"']}, "route.matchers: the root has none"),
        ({"destinations": ["chat"], "continue": True}, "route.continue: the root has none"),
        ({"destinations": ["chat"], "mute_time_intervals": ["x"]}, "there is no time interval x; there are none"),
        ({"destinations": ["mail"]}, "route.destinations: there is no destination mail; there are chat, "),
        (
            {"destinations": ["chat"], "routes": [{"matchers": ['tenant="a"'], "destinations": ["mail"]}]},
            "route.routes[0].destinations: there is no destination mail",
        ),
        ({"destinations": ["chat"], "routes": [{"matchers": ['tenat="a"']}]}, "tenat: no such label; there are "),
        ({"destinations": ["chat"], "routes": [{"matchers": ["tenant"]}]}, "'tenant' is no matcher"),
        ({"destinations": ["chat"], "routes": [{"matchers": ["tenant=a b"]}]}, "put the value into double quotes"),
        ({"destinations": ["chat"], "routes": [{"matchers": ['tenant="a"b"']}]}, "must be one text in double quotes"),
        ({"destinations": ["chat"], "routes": [{"matchers": ['tenant=~"(a"']}]}, "not a regular expression of RE2"),
        ({"destinations": ["chat"], "routes": [{"matchers": ['tenant=~"(?=a)"']}]}, "not a regular expression of RE2"),
        ({"destinations": ["chat"], "routes": [{}, {"matchers": ['tenant="a"']}]}, "routes[0]: matches every alert"),
        ({"destinations": ["chat"], "receiver": "x"}, "receiver"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tree: dict[str, Any], said: str) -> None:
    with pytest.raises((ValidationError, ValueError)) as refused:
        routing(tree)
    assert said in str(refused.value)


def test_an_expression_takes_no_power_of_a_names_length() -> None:
    tree = {"destinations": ["chat"], "routes": [{"matchers": ['tenant=~"(a+)+b"'], "destinations": ["siem"]}]}
    assert list(routing(tree).destinations({"tenant": "a" * 200_000})) == ["chat"], "and the test ends"


def test_names_of_any_characters_are_compared() -> None:
    tree = {"destinations": ["chat"], "routes": [{"matchers": ['tenant=~"shop.*"'], "destinations": ["siem"]}]}
    for tenant in ("shop\n2", "shop\udce9", "shop\x00", "shop\U0001f600"):
        assert list(routing(tree).destinations({"tenant": tenant})) == ["siem"], repr(tenant)
