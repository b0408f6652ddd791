"""Settings of the judge: what cannot be meant is refused by name, and the key is never shown."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.errors import SettingsError
from monitor.judge.command import CommandJudge
from monitor.judge.endpoint import EndpointJudge
from monitor.judge.wiring import judge_of
from monitor.settings import load_settings, reference

URL = {"judge_url": "https://judge.example/v1", "judge_model": "m"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"judge_url": "http://judge.example/v1", "judge_model": "m"}, "judge_url"),
        ({"judge_url": "judge", "judge_model": "m"}, "judge_url"),
        ({"judge_url": "https://judge.example/v1"}, "judge_model"),
        (URL | {"judge_command": ["/bin/judge"]}, "judge_command"),
        ({"judge_command": [""]}, "judge_command"),
        (URL | {"judge_request": {"messages": []}}, "judge_request"),
        (URL | {"judge_request": {"stream": True}}, "judge_request"),
        (URL | {"judge_bands": {"drift": [1, 0]}}, "judge_bands"),
        (URL | {"judge_bands": {"drift": ["nan", 0]}}, "judge_bands"),
        (URL | {"judge_bands": {"drift": [0]}}, "judge_bands"),
        (URL | {"judge_questions": {"drift": " "}}, "judge_questions"),
        (URL | {"judge_budget_per_day": 0}, "judge_budget_per_day"),
        (URL | {"judge_wait_seconds": 5, "judge_seconds": 10}, "judge_wait_seconds"),
        (URL | {"judge_threads": 0}, "judge_threads"),
        (URL | {"judge_max_characters": 10}, "judge_max_characters"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{named}[ .]"):
        load_settings(**given)


def test_nobody_is_asked_unless_one_is_named() -> None:
    assert judge_of(load_settings()) is None
    assert judge_of(load_settings(judge_model="m", judge_api_key="geheim")) is None


def test_the_judge_that_is_set() -> None:
    endpoint = judge_of(load_settings(**URL, judge_api_key="geheim"))
    assert isinstance(endpoint, EndpointJudge)
    assert (endpoint.name, endpoint.host) == ("m at judge.example", "judge.example")
    assert "geheim" not in endpoint.key + endpoint.name
    command = judge_of(load_settings(judge_command=["/opt/judge", "--fast"]))
    assert isinstance(command, CommandJudge)


def test_a_network_that_is_trusted() -> None:
    found = load_settings(judge_url="http://judge.example/v1", judge_model="m", judge_allow_http=True)
    assert judge_of(found) is not None


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWRY_JUDGE_COMMAND", '["/opt/judge", "a b"]')
    monkeypatch.setenv("AWRY_JUDGE_BANDS", '{"drift": [0.5, 1.5]}')
    monkeypatch.setenv("AWRY_JUDGE_REQUEST", '{"max_tokens": null}')
    found = load_settings()
    assert found.judge_command == ("/opt/judge", "a b")
    assert found.judge_bands == {"drift": (0.5, 1.5)}
    assert found.judge_request == {"max_tokens": None}


def test_the_key_is_not_shown() -> None:
    found = load_settings(**URL, judge_api_key="geheim")
    assert "geheim" not in f"{found!r} {found} {found.model_dump()} {found.model_dump_json()}"


def test_those_of_the_judge_are_together_behind_the_others() -> None:
    places = [n for n, (name, *_) in enumerate(reference()) if name.startswith("judge_")]
    assert places == list(range(places[0], places[0] + len(places)))
    assert places[0] > 20
