"""Takes names out of JSON and of texts.

Contract: `Forget(names, places)` replaces each of the names, where it stands as a word of its own, by `[erased]`, in
every string at any depth, keys included, but for values of a closed vocabulary (a state, a severity), which are no
names. A JSON object that refers to one of `places`, coordinates of messages, becomes null, and is left out of a list;
beside it `text`, the text of a notification's message, goes too. `changed` gives None where nothing was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from storage.coordinates import Coordinates

MARK = "[erased]"
# Values under these keys are awry's own words.
_CLOSED = frozenset(
    (
        "state",
        "severity",
        "event",
        "type",
        "kind",
        "units",
        "verdict",
        "up_to",
        "status",
        "scope",
        "rule",
        "probe",
        "model",
    )
)
_GONE = object()


class Forget:
    def __init__(self, names: Collection[str], places: Collection[Coordinates] = ()) -> None:
        wanted = {form for name in names if name for form in forms(name)}
        longest = sorted(map(re.escape, wanted), key=len, reverse=True)
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(longest)})(?!\w)") if longest else None
        self._places = set(places)

    def text(self, value: str) -> str:
        """The text without the names."""
        return self._pattern.sub(MARK, value) if self._pattern is not None else value

    def json(self, value: Any) -> Any:
        """The value without the names and the places."""
        left = self._walk(value)
        return None if left is _GONE else left

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [left for each in value if (left := self._walk(each)) is not _GONE]
        if isinstance(value, Mapping):
            if self._is_place(value):
                return _GONE
            return self._object(value)
        return value

    def _object(self, value: Mapping[str, Any]) -> dict[str, Any]:
        left: dict[str, Any] = {}
        for key, each in value.items():
            after = each if key in _CLOSED and isinstance(each, str) else self._walk(each)
            left[self.text(key)] = None if after is _GONE else after
        if "text" in left and value.get("top_message") and not left.get("top_message"):
            del left["text"]
        return left

    def _is_place(self, value: Mapping[str, Any]) -> bool:
        if not self._places or not {"source", "partition", "offset"} <= value.keys():
            return False
        try:
            at = Coordinates(value["source"], int(value["partition"]), int(value["offset"]), int(value.get("sub") or 0))
        except (TypeError, ValueError):
            return False
        return at in self._places


def forms(name: str) -> set[str]:
    """A name as it is, and as it stands in a dedup key."""
    return {name, name.replace("%", "%25").replace(":", "%3A")}


def like_forms(names: Collection[str]) -> list[str]:
    """What PostgreSQL's text of a JSON value, or a text, contains where one of the names may be in it."""
    found = {form for name in names if name for form in forms(name)}
    return sorted(found | {json.dumps(form, ensure_ascii=False)[1:-1] for form in found})
