"""Rules out of TOML: what they mean, and every mistake by its line and field."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.errors import RulesError
from alerts.rules.file import __doc__ as described
from alerts.rules.file import load_rules, parse_rules
from alerts.rules.model import Rules, ThresholdRule
from tests.support.alerts.alert_rows import flagged


def mistakes(text: str) -> list[str]:
    with pytest.raises(RulesError) as caught:
        parse_rules(text, "r.toml")
    return str(caught.value).splitlines()


def test_the_example_in_the_docstring() -> None:
    text = "\n".join(line.strip() for line in (described or "").partition("[[threshold]]")[2].splitlines())
    found = parse_rules(f"[[threshold]]{text}", "r.toml")
    assert [rule.name for rule in found.all] == ["threshold", "burst", "silence"]
    assert [rule.model_dump() for rule in found.threshold] == [ThresholdRule().model_dump()]
    assert [str(each) for each in found.exception] == ['{tenant="red-team"}']
    (burst,) = found.rate
    assert (burst.flagged, burst.of, burst.window, burst.per) == (5, 50, timedelta(minutes=10), ("conversation",))


def test_the_rules_without_a_file_are_the_defaults() -> None:
    assert Rules() == Rules(threshold=(ThresholdRule(),), rate=(), monitor=())
    assert ThresholdRule().matches(flagged(value=0.5 + 1e-12, threshold=0.5))


def test_a_file_replaces_the_built_in_rule() -> None:
    assert parse_rules("", "r.toml").all == ()


HEAD = '[[rate]]\nname = "burst"\nflagged = 3\nwindow = "10m"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", ["r.toml: not TOML: Invalid value (at end of document)"]),
        (
            "a = 1\nrate = 3",
            [
                "r.toml:1: a: no such kind of rule; there are [[threshold]], [[rate]], [[monitor]], [[exception]]",
                "r.toml:2: rate: write each rule as [[rate]]",
            ],
        ),
        ("[rate]\nflagged = 1", ["r.toml:1: rate: write each rule as [[rate]]"]),
        (
            "\n\n[[other]]\n",
            ["r.toml:3: other: no such kind of rule; there are [[threshold]], [[rate]], [[monitor]], [[exception]]"],
        ),
        ('[[rate]]\nname = "a"\nflagged = 3', ['r.toml:1: rate "a": window: is missing']),
        ('[[rate]]\nflagged = 3\nwindow = "1h"', ["r.toml:1: rate number 1: name: is missing"]),
        (
            HEAD + '# flagged\nper = ["user"]',
            ["r.toml:6: rate \"burst\": per.0: must be 'tenant', 'model' or 'conversation'"],
        ),
        (
            HEAD + "flagged_ = 1",
            [
                'r.toml:5: rate "burst": flagged_: no such field; there are name, id, tags, '
                "references, severity, shadow, reopen_within, "
                "for, clear_at, clear_for, probe, tenant, model, per, flagged, of, window, "
                "count"
            ],
        ),
        (HEAD + "of = 2", ['r.toml:5: rate "burst": of: 3 flagged of 2 conversations cannot be']),
        (
            HEAD + 'count = "turns"',
            ["r.toml:5: rate \"burst\": count: must be 'messages' or 'conversations'"],
        ),
        (
            HEAD + 'count = "conversations"\nper = "conversation"',
            [
                'r.toml:5: rate "burst": count: a rule per conversation sees one conversation; leave count out, or '
                "count messages"
            ],
        ),
        (HEAD + "clear_at = 3", ['r.toml:5: rate "burst": clear_at: 3 is over the limit of 2: it would never be open']),
        (
            HEAD + 'for = "10"',
            ["r.toml:5: rate \"burst\": for: '10' is no duration; write for example 90s, 10m, 1h30m or 2d"],
        ),
        (HEAD.replace("10m", "8d"), ['r.toml:4: rate "burst": window: must be from 1s to 7d']),
        (HEAD.replace("3", "0"), ['r.toml:3: rate "burst": flagged: must be greater than or equal to 1']),
        (
            HEAD + "[rate.severity]\nwarning = 3\ncritical = 2",
            ['r.toml:5: rate "burst": severity: a higher severity must not begin at a smaller value'],
        ),
        (
            HEAD + 'severity = {warning = "x"}',
            ['r.toml:5: rate "burst": severity: each severity needs a number: the value from which it holds'],
        ),
        (
            HEAD + "severity = {warning = 1}",
            ['r.toml:5: rate "burst": severity.warning: begins below the rule\'s own limit of 2'],
        ),
        (HEAD + 'severity = "fatal"', None),
        (
            HEAD + "severity = {fatal = 1}",
            [
                'r.toml:5: rate "burst": severity: give values for some of warning, error, critical, or one of them as '
                "text"
            ],
        ),
        (HEAD + "tenant = []", ['r.toml:5: rate "burst": tenant: write a name, a pattern with *, or a list of them']),
        (HEAD + '[[threshold]]\nname = "burst"', ['r.toml:6: threshold "burst": name: another rule has it already']),
        ("[[threshold]]\n[[threshold]]", ['r.toml:2: threshold "threshold": name: another rule has it already']),
        ("[[threshold]]\nabove = -0.1", ["r.toml:2: threshold number 1: above: must be greater than or equal to 0"]),
        ("[[threshold]]\nabove = nan", None),
        (
            '[[monitor]]\nname = "m"\ncheck = "no_traffic"\nabove = 3',
            ['r.toml:4: monitor "m": above: no_traffic has none; its window says how long the silence may be'],
        ),
        ('[[monitor]]\nname = "m"\ncheck = "x"', None),
    ],
)
def test_mistakes_have_their_line_and_field(text: str, said: list[str] | None) -> None:
    found = mistakes(text)
    if said is not None:
        # What stands after the last word that is ours is the library's own.
        assert found == said


def test_a_higher_limit_keeps_the_severities() -> None:
    """Nobody wrote the bands that begin below it."""
    (rule,) = parse_rules("[[threshold]]\nabove = 0.8", "r.toml").threshold
    assert [rule.grade(value) for value in (0.9, 1.0)] == ["error", "critical"]


def test_all_mistakes_are_reported_at_once() -> None:
    found = mistakes('[[rate]]\nname = "A b"\nflagged = 0\n[[monitor]]\nname = "x"\n\ncheck = "lag"\nwindow = 5\n')
    assert [line.split(": ", 2)[0] for line in found] == ["r.toml:1", "r.toml:2", "r.toml:3", "r.toml:8"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match=r"rules_file: cannot read .*none.toml \(FileNotFoundError\)"):
        load_rules(tmp_path / "none.toml")
    (tmp_path / "r.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(RulesError, match="not UTF-8 at byte 5"):
        load_rules(tmp_path / "r.toml")
    (tmp_path / "r.toml").write_bytes(b'[[threshold]]\r\nname = "a"\r\nper = "x"\r\n')
    with pytest.raises(RulesError, match=r"r.toml:3: "):
        load_rules(tmp_path / "r.toml")


@given(st.text(alphabet="[]= \"'#\n.a1{},\\", max_size=60))
def test_any_text_is_rules_or_a_mistake(text: str) -> None:
    said = "r.toml:"
    try:
        parse_rules(text, "r.toml")
    except RulesError as error:
        said = str(error)
    assert said.startswith("r.toml:")
