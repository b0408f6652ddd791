"""Takes names out of JSON and of texts.

Contract: `Forget(names, places)` gets names by what they are: of a user, a tenant, a conversation, an id. What stands
under a field that has such a name (`tenant`, `conversation_id`, `id` ...) becomes `[erased]` where it is one of the
names of that kind, as a whole: `corner-shop` is not `shop`, and a user's name is no tenant's. A pattern that is the
name and `*` counts as the name. Keys of JSON objects and all other fields stay. In what people wrote (`comment`,
`note`) and in errors, each of the names goes where it stands as a word of its own; a hyphen joins words.

A dedup key, a group's key and the links beside it lose the name where the object that they are in is of that tenant or
conversation; `keys` are dedup keys that go whole. A dedup key beside neither (a silence's in the audit) loses it
unless it is one of `kept`, the keys of alerts that stay; without `kept` it is left. With `only`, ids of alerts, the
tenant and the conversation of other alerts stay.

A JSON object that refers to one of `places`, coordinates of messages, becomes null, and is left out of a list; beside
it `text`, the text of a notification's message, goes too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

from storage.coordinates import Coordinates
from storage.erasures import Kind

MARK = "[erased]"
# What a field's value is a name of.
_NAMED: dict[str, Kind] = {
    "tenant": "tenant",
    "conversation": "conversation",
    "conversation_id": "conversation",
    "user": "user",
    "user_id": "user",
    "id": "id",
    "message_id": "id",
    "trace_id": "id",
}
_WRITTEN = ("comment", "note", "last_error")
# Of these a dedup key may have the name, behind its rule and its probe.
_IN_KEYS = ("tenant", "conversation_id")
_LABELS_FROM = 2
# How a key ends that was cut: the hash of the whole.
_CUT = re.compile(r"~[0-9a-f]{64}$")
_GONE = object()

Names = Mapping[Kind, Collection[str]]


class Forget:
    def __init__(
        self,
        names: Names,
        places: Collection[Coordinates] = (),
        *,
        keys: Collection[str] = (),
        kept: Collection[str] | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        self._names = {kind: frozenset(filter(None, values)) for kind, values in names.items()}
        written = {form for values in self._names.values() for name in values for form in forms(name)} | {*keys}
        self._pattern = _words(written) if written else None
        self._places, self._keys, self._kept, self._only = set(places), frozenset(keys), kept, only

    def text(self, value: str) -> str:
        """What somebody wrote, without the names."""
        return self._pattern.sub(MARK, value) if self._pattern is not None else value

    def json(self, value: Any) -> Any:
        """The value without the names and the places."""
        left = self._walk(value, frozenset())
        return None if left is _GONE else left

    def group_key(self, value: str, body: Any) -> str:
        """The key of the group that an event is in."""
        data = body.get("data") if isinstance(body, Mapping) else None
        return self._labels(value, self._own(data) if isinstance(data, Mapping) else frozenset(), 0)

    def names_key(self, value: str) -> bool:
        """Whether a dedup key that stands alone has one of the names."""
        return self._lone_key(value) != value

    def _walk(self, value: Any, own: frozenset[str]) -> Any:
        if isinstance(value, list):
            return [left for each in value if (left := self._walk(each, own)) is not _GONE]
        if isinstance(value, Mapping):
            return _GONE if self._is_place(value) else self._object(value, own)
        return value

    def _object(self, value: Mapping[str, Any], own: frozenset[str]) -> dict[str, Any]:
        """`own`: of the names, those of the alert that the object around it is about."""
        beside = any(name in value for name in _IN_KEYS)
        own = self._own(value) if beside else own
        left = {key: self._field(key, each, value, own, beside=beside) for key, each in value.items()}
        if "text" in left and value.get("top_message") and not left.get("top_message"):
            del left["text"]
        return left

    def _field(self, key: str, each: Any, of: Mapping[str, Any], own: frozenset[str], *, beside: bool) -> Any:
        # The text of a message that stays.
        if key == "text":
            return each
        if not isinstance(each, str):
            links = key == "links" and isinstance(each, Mapping)
            after = {name: _unlinked(url, own) for name, url in each.items()} if links else self._walk(each, own)
            return None if after is _GONE else after
        if key == "dedup_key":
            return self._beside_key(each, own) if beside else self._lone_key(each)
        if key == "key":
            return self._labels(each, own, 0)
        if key in _WRITTEN:
            return self.text(each)
        # A token of a tenant often has the tenant's name.
        kind = "tenant" if key == "name" and "scope" in of else _NAMED.get(key)
        if kind is None or (key in _IN_KEYS and self._is_of_another(of)):
            return each
        return MARK if self._is_name(kind, each) else each

    def _own(self, of: Mapping[str, Any]) -> frozenset[str]:
        if self._is_of_another(of):
            return frozenset()
        given = ((_NAMED[name], of.get(name)) for name in _IN_KEYS)
        return frozenset(name for kind, name in given if isinstance(name, str) and self._is_name(kind, name))

    def _is_of_another(self, of: Mapping[str, Any]) -> bool:
        return self._only is not None and "alert_id" in of and of["alert_id"] not in self._only

    def _is_name(self, kind: Kind, value: str) -> bool:
        return bool({value, value.strip("*")} & self._names.get(kind, frozenset()))

    def _beside_key(self, key: str, own: frozenset[str]) -> str:
        return MARK if key in self._keys else self._labels(key, own, _LABELS_FROM)

    def _lone_key(self, key: str) -> str:
        if key in self._keys:
            return MARK
        if self._kept is None or key in self._kept:
            return key
        names = {name for kind in ("tenant", "conversation") for name in self._names.get(kind, ())}
        return self._labels(key, names, _LABELS_FROM)

    def _labels(self, key: str, names: Collection[str], first: int) -> str:
        """A key without the names among its parts from `first` on. A long key is cut, and has a hash of the whole."""
        wanted = {form for name in names for form in forms(name)}
        cut = _CUT.search(key)
        parts = key[: cut.start() if cut else None].split(":")
        left = [MARK if n >= first and part in wanted else part for n, part in enumerate(parts)]
        if cut and parts[-1] and any(form.startswith(parts[-1]) for form in wanted):
            left[-1] = MARK
        return key if left == parts else ":".join(left)

    def _is_place(self, value: Mapping[str, Any]) -> bool:
        if not self._places or not {"source", "partition", "offset"} <= value.keys():
            return False
        try:
            at = Coordinates(value["source"], int(value["partition"]), int(value["offset"]), int(value.get("sub") or 0))
        except (TypeError, ValueError):
            return False
        return at in self._places


def _words(names: Collection[str]) -> re.Pattern[str]:
    longest = sorted(map(re.escape, names), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?<!\w-)(?:{'|'.join(longest)})(?!-?\w)")


def _unlinked(url: Any, own: Collection[str]) -> Any:
    """A link without the names, which stand in it as `alerts.links` writes them, once or within a dedup key."""
    quoted = sorted({re.escape(quote(form, safe="")) for name in own for form in forms(name)}, key=len, reverse=True)
    if not quoted or not isinstance(url, str):
        return url
    return re.sub(rf"(?:(?<=%3A)|(?<![\w%-]))(?:{'|'.join(quoted)})(?![\w-])", MARK, url)


def forms(name: str) -> set[str]:
    """A name as it is, and as it stands in a dedup key."""
    return {name, name.replace("%", "%25").replace(":", "%3A")}


def like_forms(names: Collection[str]) -> list[str]:
    """What PostgreSQL's text of a JSON value, or a text, contains where one of the names may be in it."""
    found = {form for name in names if name for form in forms(name)}
    return sorted(found | {json.dumps(form, ensure_ascii=False)[1:-1] for form in found})
