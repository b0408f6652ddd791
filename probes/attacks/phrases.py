"""Families that put words beside a request: suffixes, prefixes, padding, framing. Their words are in wordings.toml.

Contract: `phrases(name)` gives every wording of a section of the file, one for each combination of its slots' values;
the request stands in it unchanged, once.
"""

from __future__ import annotations

import itertools
import random
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from probes.attacks.base import Family, Materials, Wording

_SLOT = re.compile(r"\{(\w+)\}")
_REQUEST = "{request}"


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files("probes.attacks").joinpath("wordings.toml").read_text(encoding="utf-8"))


def words(name: str) -> list[Any]:
    """A list of words that other families are made of."""
    listed: list[Any] = _data()["words"][name]
    return listed


def expand(name: str) -> Iterator[tuple[str, str]]:
    """(pattern with every slot but the request filled, value of the slot that parts are split by)."""
    section = _data()[name]
    by, slots = section["by"], section["slots"]
    for pattern in section["patterns"]:
        used = [slot for slot in _SLOT.findall(pattern) if slot != "request"]
        for values in itertools.product(*(slots[slot] for slot in used)):
            chosen = dict(zip(used, values, strict=True))
            filled = _SLOT.sub(lambda found, chosen=chosen: chosen.get(found[1], found[0]), pattern)  # type: ignore[misc]
            yield filled, chosen.get(by, filled)


@cache
def phrases(name: str) -> tuple[Wording, ...]:
    """All wordings of a section whose patterns hold the request."""
    return tuple(Wording(filled, text=_around(filled), key=key) for filled, key in expand(name))


def _around(filled: str) -> Callable[[str, random.Random], str]:
    before, _, after = filled.partition(_REQUEST)

    def put(request: str, _rng: random.Random) -> str:
        return before + request + after

    return put


def _family(name: str, about: str, *, holds_out: bool = False) -> Family:
    def make(_materials: Materials) -> tuple[Wording, ...]:
        return phrases(name)

    return Family(name, about, make, "request", holds_out)


FAMILIES = (
    _family("suffix-language", "a language asked for, behind the request"),
    _family("suffix-format", "a form asked for, behind the request"),
    _family("suffix-polite", "thanks behind the request"),
    _family("suffix-manner", "a short wish on how to answer, behind the request", holds_out=True),
    _family("suffix-question", "a harmless question behind the request"),
    _family("prefix-greeting", "a greeting and an opener before the request"),
    _family("prefix-instruction", "rules for the answer before the request"),
    _family("padding-polite", "polite small talk before and behind the request"),
    _family("framing-fiction", "the request as part of a story"),
    _family("framing-roleplay", "the request to a character that the model is to play"),
    _family("framing-research", "the request as part of research", holds_out=True),
    _family("framing-exam", "the request as an exam question", holds_out=True),
)
