"""SHA-256 of files, texts, sets of texts, plain data and arrays, as cards, manifests and cache keys hold them.

Contract: these digests are on disk (probe cards, manifests of adapters and organisms, results of studies, names in
caches) and decide splits. A function here never changes what it returns for an input; a new need gets a new function.
Digests are 64 hex digits; callers may cut them. Texts are UTF-8 with lone surrogates passed through.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sha256_bytes(data: bytes) -> str:
    """Of bytes as they are."""
    return hashlib.sha256(data).hexdigest()


def sha256_text(text: str) -> str:
    """Of one text."""
    return sha256_bytes(_encoded(text))


def sha256_file(path: Path) -> str:
    """Of a file's content, read in pieces: a checkpoint need not fit into memory."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Of plain data as JSON with sorted keys; `default` turns what JSON lacks into something that it has."""
    return sha256_text(json.dumps(value, sort_keys=True, default=default))


def card_digest(card: Mapping[str, Any]) -> str:
    """Which probe a card is of: 32 hex digits over all that decides a score or a flag, the tensors' hash included.

    The same for every spelling of the same JSON (order of keys, 1.0 for 1, the card as it comes back from a database),
    and for a card that is written again by a later awry: what is null or empty counts as left out. A field that cards
    get later must therefore be null or empty where it changes nothing."""
    kept = {key: value for key, value in card.items() if key not in _OF_NO_CONSEQUENCE}
    identity = kept.get("identity")
    if isinstance(identity, Mapping) and identity.get("special_tokens") == "as_tokens":
        # The one field of before this function that cards got later with another default.
        kept["identity"] = {key: value for key, value in identity.items() if key != "special_tokens"}
    return sha256_text(json.dumps(_plain(kept), sort_keys=True, separators=(",", ":")))[:32]


# Of a probe's card: what is said about it.
_OF_NO_CONSEQUENCE = frozenset({"description", "evaluation", "attacks", "created", "seen", "engine"})


def _plain(value: Any) -> Any:
    """Without what is null or empty in an object, and whole numbers as integers."""
    if isinstance(value, Mapping):
        plain = {key: _plain(each) for key, each in value.items()}
        return {key: each for key, each in plain.items() if each is not None and each not in ({}, [])}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def sha256_arrays(*arrays: NDArray[Any]) -> str:
    """Of the arrays' bytes, one after the other; shapes and types are not part of it."""
    return sha256_bytes(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))


def sha256_lines(lines: Iterable[str]) -> str:
    """Of lines in sorted order, joined with nothing between them."""
    return sha256_bytes(b"".join(_encoded(line) for line in sorted(lines)))


def hash_texts(texts: Iterable[str]) -> str:
    """Of a collection of texts in any order: the digest of the sorted digests, so that no border can be moved."""
    return sha256_bytes(b"".join(sorted(hashlib.sha256(_encoded(text)).digest() for text in texts)))


def unit_interval(text: str) -> float:
    """A number in [0, 1) that the text decides: the digest's first 8 bytes over 2**64."""
    return int.from_bytes(hashlib.sha256(_encoded(text)).digest()[:8]) / 2**64


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
