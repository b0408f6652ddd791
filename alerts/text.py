"""An alert as text, for people: pagers, chats, annotations.

Names in it come from traffic: unprintable characters are escaped, long names are cut, and nothing in them can mention a
channel or make a link in a chat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NAME_LENGTH = 80
# Mentions in Slack, Teams, Discord and Mattermost.
_MENTION = re.compile(r"@(?=everyone|here|channel|all\b)|<(?=[!@#])", re.IGNORECASE)
_EVENT_WORDS = {
    "alert.opened": "opened",
    "alert.reopened": "reopened",
    "alert.worsened": "worse",
    "alert.acknowledged": "acknowledged",
    "alert.resolved": "resolved",
}


def printable(text: str) -> str:
    """Text from outside, with everything escaped that would break a line or control a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def title(name: object) -> str:
    """A name, printable and of limited length, without mentions."""
    text = printable(str(name))
    text = text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"
    return _MENTION.sub(lambda match: match[0] + "\u200b", text)


def summary(data: Mapping[str, Any]) -> str:
    """One line: severity, rule, labels, count, value; and how many other alerts are in the notification."""
    # An alert on the monitor itself is about all tenants, and names the one that makes most of it; one on a probe is
    # about the tenant that it names.
    mostly = "mostly " if data.get("kind") == "monitor" and not data.get("probe") else ""
    where = [
        f"{mostly}{name.removesuffix('_id')} {title(data[name])}"
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
    """The coordinates of the message with the highest score; empty for a rule without messages."""
    top = data.get("top_message")
    return title(coordinates(top)) if top else ""


def decided(message: Mapping[str, Any]) -> str:
    """How the message was read and which of its turns decided, where that is known; turns are counted from 1 here."""
    found = [f"read as {title(message['reading'])}"] if message.get("reading") else []
    if message.get("turn") is not None:
        said = {"True": ", which is new", "False": ", which came before"}.get(str(message.get("turn_new")), "")
        found.append(f"turn {int(message['turn']) + 1}{said}")
    return "; ".join(found)


def decided_by(message: Mapping[str, Any]) -> str:
    """The same as an addition to a line."""
    found = decided(message)
    return f" ({found})" if found else ""


def coordinates(message: Mapping[str, Any]) -> str:
    """The coordinates of a message that an alert refers to, as one string; `sub` is left out where it is 0."""
    sub = f".{message['sub']}" if message.get("sub") else ""
    return f"{message['source']}/{message['partition']}/{message['offset']}{sub}"


def headline(event: str, data: Mapping[str, Any]) -> str:
    """The event and the alert, in a few words."""
    return f"awry: {_EVENT_WORDS.get(event, event)}: {str(data['severity']).upper()} {title(data['dedup_key'])}"


def lines(data: Mapping[str, Any]) -> list[str]:
    """The notification as text, one fact a line."""
    facts = [summary(data)]
    if data.get("by"):
        facts.append(f"by {title(data['by'])}")
    for other in data.get("group", {}).get("others", ()):
        facts.append(f"also {summary(other)}")
    left_out = data.get("group", {}).get("left_out", 0)
    if left_out:
        facts.append(f"and {left_out} more")
    if top_message(data):
        facts.append(f"top message {top_message(data)}{decided_by(data['top_message'])}")
    if data.get("tags"):
        facts.append(f"tags {', '.join(data['tags'])}")
    facts += [f"{name} {url}" for name, url in data.get("links", {}).items()]
    facts.append(f"alert {data['alert_id']}")
    return facts
