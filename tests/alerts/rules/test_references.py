"""Rule ids, tags and references: their form, and that they reach whoever is told of an alert."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine

from alerts.delivery.channel import Channel
from alerts.delivery.deliver import deliver_due
from alerts.errors import RulesError
from alerts.links import Links
from alerts.rules.builtin import built_in
from alerts.rules.file import load_rules
from alerts.rules.references import about_rules
from tests.support import ROOT
from tests.support.alerts.alert_rows import flagged, open_alerts
from tests.support.alerts.alert_scenes import rules
from tests.support.alerts.delivery import Recorder

WRITTEN = """
[[threshold]]
name = "threshold"
id = "0b7a9c1e-5a52-4d56-9c0b-2f4f6f0f7d11"
tags = ["AML.T0051.000", "T1059.001", "LLM01:2025", "team.soc"]
references = ["https://wiki.example/threshold"]
"""


def test_every_rule_that_ships_has_an_id_of_its_own_and_those_that_fit_have_tags() -> None:
    shipped = built_in(0.5, 1.0).all
    example = load_rules(Path(ROOT / "deploy" / "rules.example.toml")).all
    for found in (shipped, example):
        ids = [rule.id for rule in found]
        assert None not in ids
        assert len(set(ids)) == len(ids)
        assert any("AML.T0068" in rule.tags for rule in found)
    of_both = {rule.name: rule.id for rule in example}
    assert all(of_both[rule.name] == rule.id for rule in shipped), "a file that begins with them keeps their ids"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('tags = ["AML.T51"]', "tags: 'AML.T51' is no tag; write AML.T0051"),
        ('tags = ["LLM11:2025"]', "'LLM11:2025' is no tag"),
        ('tags = ["LLM01"]', "'LLM01' is no tag"),
        ('tags = ["T10590"]', "'T10590' is no tag"),
        ("tags = [5]", "5 is no tag"),
        ('references = ["wiki.example"]', "references: 'wiki.example' is no address"),
        ('references = ["javascript:alert(1)"]', "is no address"),
        ('id = "two words"', "id: "),
        ('id = ""', "id: "),
    ],
)
def test_their_form_is_checked(line: str, said: str) -> None:
    with pytest.raises(RulesError) as refused:
        rules(f'[[threshold]]\nname = "threshold"\n{line}\n')
    assert str(refused.value).startswith("rules.toml:3: ")
    assert said in str(refused.value)


def test_two_rules_with_one_id_are_refused() -> None:
    with pytest.raises(RulesError, match=r'rules.toml:6: threshold "b": id: another rule has it already'):
        rules('[[threshold]]\nname = "a"\nid = "x"\n[[threshold]]\nname = "b"\nid = "x"\n')


def test_notifications_have_them(engine: Engine) -> None:
    open_alerts(engine, [flagged(1)], ("pager",))
    sender = Recorder()
    links = Links(rules=about_rules(rules(WRITTEN).all))
    assert deliver_due(engine, {"pager": Channel(sender, links=links)}).sent == 1
    data = sender.sent[0].body["data"]
    assert data["rule_id"] == "0b7a9c1e-5a52-4d56-9c0b-2f4f6f0f7d11"
    assert data["tags"] == ["AML.T0051.000", "T1059.001", "LLM01:2025", "team.soc"]
    assert data["references"] == ["https://wiki.example/threshold"]
    assert json.dumps(data)


def test_a_rule_without_them_adds_nothing(engine: Engine) -> None:
    open_alerts(engine, [flagged(1)], ("pager",))
    sender = Recorder()
    links = Links(rules=about_rules(rules('[[threshold]]\nname = "threshold"\n').all))
    deliver_due(engine, {"pager": Channel(sender, links=links)})
    assert not {"rule_id", "tags", "references"} & sender.sent[0].body["data"].keys()
