"""What an alert is called in words, for people: pagers, chats, annotations.

Names in it come from traffic: what is not printable is escaped, long names are cut, and nothing in them can mention
a channel or make a link in a chat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NAME_LENGTH = 80
# Slack, Teams, Discord and Mattermost call people by these.
_MENTION = re.compile(r"@(?=everyone|here|channel|all\b)|<(?=[!@#])", re.IGNORECASE)
_HAPPENED = {
    "alert.opened": "opened",
    "alert.reopened": "reopened",
    "alert.worsened": "worse",
    "alert.acknowledged": "acknowledged",
    "alert.resolved": "resolved",
}


def printable(text: str) -> str:
    """A name comes from outside: what would break a line or steer a terminal is escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def title(name: object) -> str:
    """A name as it may stand in a sentence."""
    text = printable(str(name))
    text = text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"
    return _MENTION.sub(lambda found: found[0] + "\u200b", text)


def summary(data: Mapping[str, Any]) -> str:
    """One line: how grave, what, whose, how often, how high; and how many others are on the page."""
    where = [
        f"{name.removesuffix('_id')} {title(data[name])}"
        for name in ("tenant", "model", "conversation_id")
        if data.get(name)
    ]
    what = f"{str(data['severity']).upper()} {title(data['rule'])}" + (
        f": {title(data['probe'])}" if data.get("probe") else ""
    )
    value = f"{data['score']:.2f} over {data['threshold']:.2f} {data.get('units') or 'class gaps'}"
    messages = f"{data['count']} message{'' if data['count'] == 1 else 's'}, " if data.get("top_message") else ""
    others = data.get("group", {}).get("alerts", 1) - 1
    more = f"; and {others} other alert{'' if others == 1 else 's'}" if others else ""
    return f"{what} ({', '.join(where) or 'all'}): {messages}{value}{more}"


def top_message(data: Mapping[str, Any]) -> str:
    """Where the message with the highest score is; empty for a rule that is about none."""
    top = data.get("top_message")
    return title(f"{top['source']}/{top['partition']}/{top['offset']}") if top else ""


def headline(event: str, data: Mapping[str, Any]) -> str:
    """What happened, in a few words."""
    return f"awry: {_HAPPENED.get(event, event)}: {str(data['severity']).upper()} {title(data['dedup_key'])}"


def lines(data: Mapping[str, Any]) -> list[str]:
    """The page as text, a fact a line."""
    found = [summary(data)]
    if data.get("by"):
        found.append(f"by {title(data['by'])}")
    for other in data.get("group", {}).get("others", ()):
        found.append(f"also {summary(other)}")
    left_out = data.get("group", {}).get("left_out", 0)
    if left_out:
        found.append(f"and {left_out} more")
    if top_message(data):
        found.append(f"top message {top_message(data)}")
    found += [f"{name} {url}" for name, url in data.get("links", {}).items()]
    found.append(f"alert {data['alert_id']}")
    return found
