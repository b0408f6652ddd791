"""Matchers on the labels of an alert, as Alertmanager writes them: `severity="critical"`, `tenant=~"acme|shop"`.

Contract: `=`, `!=`, `=~` and `!~`; the value is in double quotes, or bare. A label that an alert does not have is the
empty string, so `tenant=""` matches alerts without a tenant. Regular expressions are RE2's, anchored at both ends, and
take time linear in the name: names come from traffic. A label that no alert can have is an error, since a route with a
misspelt one would match nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

import re2
from pydantic import BeforeValidator

Operator = Literal["=", "!=", "=~", "!~"]
# The labels of an alert, those that an Alertmanager gets.
LABELS = ("alertname", "rule", "kind", "severity", "probe", "tenant", "model", "conversation_id")
ALERTNAME = "awry"

_WRITTEN = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!=|!~|=)\s*(.*?)\s*", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\\n]|\\["\\n])*)"', re.DOTALL)
_ESCAPES = {'\\"': '"', "\\\\": "\\", "\\n": "\n"}
_QUIET = re2.Options()
_QUIET.log_errors = False


@dataclass(frozen=True)
class Matcher:
    """One condition on one label."""

    label: str
    operator: Operator
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels fulfils it."""
        found = labels.get(self.label, "")
        if self.operator in ("=", "!="):
            return (found == self.value) == (self.operator == "=")
        # A lone surrogate is no UTF-8: no expression can be meant for it.
        text = found.encode("utf-8", "replace").decode("utf-8")
        return (_expression(self.value).fullmatch(text) is not None) == (self.operator == "=~")

    def __str__(self) -> str:
        value = re.sub(r'["\\]', r"\\\g<0>", self.value).replace("\n", "\\n")
        return f'{self.label}{self.operator}"{value}"'


def parse_matcher(written: str, labels: Sequence[str] = LABELS) -> Matcher:
    """A matcher from its text; ValueError says what is wrong with it."""
    match = _WRITTEN.fullmatch(written)
    if match is None:
        raise ValueError(f'{written!r} is no matcher; write for example severity="critical" or tenant=~"a|b"')
    label, operator, value = match.groups()
    if label not in labels:
        raise ValueError(f"{label}: no such label; there are {', '.join(labels)}")
    if value.startswith('"'):
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            raise ValueError(f'{written!r}: the value must be one text in double quotes, with \\" for a quote')
        value = re.sub(r'\\["\\n]', lambda escape: _ESCAPES[escape[0]], quoted[1])
    elif re.search(r'[\s{}!=~,\\"\'`]', value):
        raise ValueError(f"{written!r}: put the value into double quotes")
    if operator in ("=~", "!~"):
        try:
            _expression(value)
        except re2.error as error:
            raise ValueError(f"{written!r}: not a regular expression of RE2 ({_reason(error)})") from None
    return Matcher(label, operator, value)  # type: ignore[arg-type]


def match_all(matchers: Sequence[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether all of them match; none at all match everything."""
    return all(matcher.matches(labels) for matcher in matchers)


def labels_of(alert: Mapping[Any, Any]) -> dict[str, str]:
    """The labels of an alert out of its columns, or out of the `data` of an event. One on the monitor itself is about
    all tenants, also where it names one; one on a probe is about the tenant that it names."""
    of_all = alert.get("kind") == "monitor" and not alert.get("probe")
    named = {name: str(alert[name]) for name in LABELS if alert.get(name) and not (of_all and name == "tenant")}
    return {"alertname": ALERTNAME, **named}


def _parsed(written: object) -> object:
    texts = (written,) if isinstance(written, str) else written
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str | Matcher) for text in texts):
        raise ValueError('write a list of matchers, for example ["severity=\\"critical\\""]')
    return tuple(text if isinstance(text, Matcher) else parse_matcher(text) for text in texts)


Matchers = Annotated[tuple[Matcher, ...], BeforeValidator(_parsed)]


@cache
def _expression(pattern: str) -> Any:
    return re2.compile(f"(?s:{pattern})", _QUIET)


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
