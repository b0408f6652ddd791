"""Dedup keys: names joined by `:`, readable, as pagers show them.

Contract: `dedup_key(rule, subject, labels)` is `rule:probe:tenant:model`; different names have different keys, and a
key has at most 255 characters, which is what pagers take, and 1,000 bytes, which fits an index. A `:` or `%` in a name
is written `%3A`, `%25`; `-` stands for no name, so a name that is a `-` is written `%2D`. A longer key is its
beginning, `~` and the SHA-256 of the whole.

`former_key` is what the same names had before they were escaped, when different names could share a key: an alert that
was opened then is found by it until it is resolved (`alerts.lifecycle.former_keys`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

MAX_CHARACTERS = 255
MAX_BYTES = 1000
# What only a shortened key may look like: a name is not mistaken for one.
_SHORTENED = re.compile(r"~[0-9a-f]{64}$")
_HASH_LENGTH = 65


def dedup_key(rule: str, subject: str | None, labels: Sequence[str | None]) -> str:
    """The key of a rule's alert for a probe (or what else it is about) and labels."""
    return joined((rule, subject, *labels))


def joined(names: Sequence[str | None]) -> str:
    """Names as one key; None, or an empty one, is `-`."""
    key = ":".join(_escaped(name) for name in names)
    encoded = key.encode("utf-8", "surrogatepass")
    if len(key) <= MAX_CHARACTERS and len(encoded) <= MAX_BYTES and not _SHORTENED.search(key):
        return key
    # A character takes at most four bytes: the beginning is well within MAX_BYTES.
    return f"{key[: MAX_CHARACTERS - _HASH_LENGTH]}~{hashlib.sha256(encoded).hexdigest()}"


def former_key(rule: str, subject: str | None, labels: Sequence[str | None]) -> str | None:
    """The key that a rule's alert had before names were escaped; None where it is the same as today."""
    names = (rule, subject, *labels)
    key = ":".join((name or "-").replace(":", "_") for name in names)
    if len(key) > MAX_CHARACTERS:
        key = f"{key[: MAX_CHARACTERS - 17]}~{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
    return key if key != joined(names) else None


def _escaped(name: str | None) -> str:
    if not name:
        return "-"
    return "%2D" if name == "-" else name.replace("%", "%25").replace(":", "%3A")
