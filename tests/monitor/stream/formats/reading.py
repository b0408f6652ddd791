"""One message out of a payload."""

from __future__ import annotations

import json
from typing import Any

from monitor.stream.parse import parse
from monitor.stream.wire import Invalid, WireMessage


def read(payload: Any) -> WireMessage:
    """The message that a payload is."""
    (found,) = parse(json.dumps(payload).encode())
    assert isinstance(found, WireMessage), found
    return found


def read_all(payload: Any) -> list[WireMessage]:
    """The messages of a payload."""
    found = [each for each in parse(json.dumps(payload).encode()) if isinstance(each, WireMessage)]
    assert found
    return found


def refused(payload: Any) -> Invalid:
    """Why a payload is no message."""
    (found,) = parse(json.dumps(payload).encode())
    assert isinstance(found, Invalid), found
    return found
