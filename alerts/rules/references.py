"""What a rule says of itself to a SIEM: its id, addresses to read, and tags of public catalogues.

Contract: a tag is a technique of MITRE ATLAS (`AML.T0051`, `AML.T0051.000`) or ATT&CK (`T1059`, `T1059.001`), an entry
of OWASP's Top 10 for LLM applications (`LLM01:2025`), or a word of one's own in lower-case letters. Only the form is
checked: the catalogues grow. `about_rules` is what notifications add to an alert by its rule's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit

from pydantic import BeforeValidator

ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_ATLAS = re.compile(r"(AML\.T[0-9]{4})(\.[0-9]{3})?")
_ATTACK = re.compile(r"(T[0-9]{4})(\.[0-9]{3})?")
_OWASP = re.compile(r"LLM(0[1-9]|10):20[0-9]{2}")
_OWN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_CATALOGUES = {"MITRE ATLAS": _ATLAS, "MITRE ATT&CK": _ATTACK}


def _tags(written: object) -> object:
    tags = (written,) if isinstance(written, str) else written
    for tag in tags if isinstance(tags, list | tuple) else (tags,):
        forms = (_ATLAS, _ATTACK, _OWASP, _OWN)
        if not isinstance(tag, str) or not any(form.fullmatch(tag) for form in forms):
            raise ValueError(
                f"{tag!r} is no tag; write AML.T0051 (MITRE ATLAS), T1059 (ATT&CK), LLM01:2025 (OWASP), or a word of "
                "your own in lower-case letters"
            )
    return tuple(tags)  # type: ignore[arg-type]


def _references(written: object) -> object:
    addresses = (written,) if isinstance(written, str) else written
    for address in addresses if isinstance(addresses, list | tuple) else (addresses,):
        if not isinstance(address, str) or not _is_address(address):
            raise ValueError(f"{address!r} is no address; write https://HOST/...")
    return tuple(addresses)  # type: ignore[arg-type]


Tags = Annotated[tuple[str, ...], BeforeValidator(_tags)]
References = Annotated[tuple[str, ...], BeforeValidator(_references)]


class Rule(Protocol):
    """What is read of a rule of any kind."""

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> str | None: ...
    @property
    def tags(self) -> Tags: ...
    @property
    def references(self) -> References: ...


def about_rules(rules: Iterable[Rule]) -> dict[str, dict[str, Any]]:
    """By name: `rule_id`, `tags`, `references`, as far as the rule has them."""
    about = {}
    for rule in rules:
        said: Mapping[str, Any] = {"rule_id": rule.id, "tags": list(rule.tags), "references": list(rule.references)}
        about[rule.name] = {name: value for name, value in said.items() if value}
    return about


def techniques(tags: Sequence[str]) -> list[tuple[str, str, str | None]]:
    """(catalogue, technique, sub-technique or None) of the tags that are techniques."""
    found = []
    for tag in tags:
        for catalogue, form in _CATALOGUES.items():
            match = form.fullmatch(tag)
            if match is not None:
                found.append((catalogue, match[1], tag if match[2] else None))
    return found


def other_tags(tags: Sequence[str]) -> list[str]:
    """Those that are no techniques."""
    return [tag for tag in tags if not techniques([tag])]


def is_owasp(tag: str) -> bool:
    """Whether it is an entry of OWASP's Top 10 for LLM applications."""
    return _OWASP.fullmatch(tag) is not None


def address_of(technique: str) -> str:
    """Where a catalogue describes a technique or sub-technique."""
    if technique.startswith("AML."):
        return f"https://atlas.mitre.org/techniques/{technique}"
    return f"https://attack.mitre.org/techniques/{technique.replace('.', '/')}/"


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable() and " " not in text
