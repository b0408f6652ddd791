"""The reading record: what an engine that runs probes itself says of one request, as one JSON object.

Contract: `dumps(reading)` gives UTF-8 JSON, `loads(payload)` the reading, or ReadingError, which names the field and
the fix and quotes nothing. What is scored is checked strictly: all numbers finite, names and lists within the limits
below. What clients send along (tenant, user, conversation, trace, attributes) never costs a reading: what cannot be
held of it is left out, on both sides, and `loads` says so in `notes`. Fields that this version does not know are
left out and noted. There is no text and no token id in a record.

`value`, `turns` and `parts` are in class gaps of the card, before the correction for length. Times are ISO 8601 in UTC.
A `heartbeat` has no request: it says that the engine lives, how many readings it has dropped, and, where `closed` is
set, that no more will come.

Imports the standard library and modules of awry that need no more: it runs inside the engine's own environment.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from awry.errors import AwryError
from monitor.stream.formats import fields as side
from storage.attributes import bounded
from storage.coordinates import clean

VERSION = 1
VERSION_FIELD = "awry_reading"
# Values of `kind` and `finish`.
FINAL, PARTIAL, HEARTBEAT = "final", "partial", "heartbeat"
KINDS = (FINAL, PARTIAL, HEARTBEAT)
FINISHES = ("stop", "length", "abort", "error")
ASKED, FLAGGED = "asked", "flagged"

MAX_PROBES = 64
MAX_TURNS = 10_000
MAX_PARTS = 16_384
MAX_REASON = 300
MAX_ROLE = 64
MAX_REQUEST = 200
# Of the JSON of a model's identity.
MAX_IDENTITY_BYTES = 8192
# PostgreSQL's bigint.
_MAX_COUNT = 2**63 - 1
_INSTANCE = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{16,64}")

T = TypeVar("T")


class ReadingError(AwryError):
    """A record that is no reading; the message names the field and the fix."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a request: of its prompt, of its answer so far, and those of the prompt that a cache had."""

    prompt: int = 0
    response: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True)
class ProbeValue:
    """What one probe read, of `tokens` tokens of its span: `turns` the highest value by turn, `parts` by direction."""

    name: str
    digest: str
    value: float
    tokens: int
    turns: tuple[tuple[int, float], ...] = ()
    parts: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class NotScored:
    """Why a probe has no value, in the engine's words."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Steered:
    """The recipe that the engine steered by; `why` is `asked` or `flagged`."""

    recipe: str
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """See the module. `sequence` counts the records of an `instance` (one process of an engine) from 0, and `dropped`
    those that its publisher had to leave out, which have no number."""

    engine: str
    instance: str
    sequence: int
    kind: str
    created: datetime
    dropped: int = 0
    closed: bool = False
    id: str | None = None
    # The engine's own id of the request: no client can choose it.
    request: str | None = None
    model: str | None = None
    model_identity: Mapping[str, Any] | None = None
    finish: str | None = None
    tokens: Tokens = Tokens()
    tenant: str | None = None
    user: str | None = None
    conversation_id: str | None = None
    trace_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    # Which of tenant and user the server vouches for.
    verified: tuple[str, ...] = ()
    # Of all turns of the request, where the engine knows them: what `turns` count.
    roles: tuple[str, ...] = ()
    probes: tuple[ProbeValue, ...] = ()
    not_scored: tuple[NotScored, ...] = ()
    steered: Steered | None = None
    # What `loads` left out, in closed wording; not in the record.
    notes: tuple[str, ...] = field(default=(), compare=False)


_SIDE_NAMES = ("tenant", "user", "conversation_id", "trace_id")
_VOUCHED = ("tenant", "user")
_AS_THEY_ARE = (
    *(
        "id",
        "request",
        "model",
        "model_identity",
        "finish",
        "tenant",
        "user",
        "conversation_id",
        "trace_id",
        "attributes",
    ),
    *("verified", "roles"),
)
_OF_PROBES = tuple(each.name for each in fields(ProbeValue))
_KNOWN = {VERSION_FIELD, *(each.name for each in fields(Reading) if each.name != "notes")}


def as_json(reading: Reading) -> dict[str, Any]:
    """The record as an object; what it does not say is left out."""
    made: dict[str, Any] = {VERSION_FIELD: VERSION}
    made |= {each: getattr(reading, each) for each in ("engine", "instance", "sequence", "kind")}
    made |= {"created": reading.created.astimezone(UTC).isoformat(), "dropped": reading.dropped}
    made |= {"closed": True} if reading.closed else {}
    if reading.kind != HEARTBEAT:
        made["tokens"] = asdict(reading.tokens)
    made |= {each: value for each in _AS_THEY_ARE if (value := getattr(reading, each))}
    if reading.probes:
        # By hand: a probe of heads has thousands of parts.
        made["probes"] = [{slot: getattr(each, slot) for slot in _OF_PROBES} for each in reading.probes]
    if reading.not_scored:
        made["not_scored"] = [asdict(each) for each in reading.not_scored]
    if reading.steered is not None:
        made["steered"] = asdict(reading.steered)
    return made


def dumps(reading: Reading) -> bytes:
    """The record. Raises ReadingError where it is none; side fields that cannot be held are left out."""
    return encode(as_json(reading))


def encode(value: Mapping[str, Any]) -> bytes:
    """`dumps` of a reading that is an object already."""
    made = as_json(check(value))
    return json.dumps(made, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")


def loads(payload: bytes | str) -> Reading:
    """The reading of a record."""
    try:
        text = payload.decode("utf-8-sig") if isinstance(payload, bytes) else payload
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ReadingError("payload: not JSON in UTF-8; send one reading a record, as JSON") from None
    return check(value)


def is_reading(value: Any) -> bool:
    """Whether a decoded record says that it is a reading, of whatever version."""
    return isinstance(value, Mapping) and VERSION_FIELD in value


def check(value: Any) -> Reading:
    """The reading of a decoded record. Raises ReadingError."""
    try:
        return _checked(value)
    except RecursionError:
        raise ReadingError("payload: nested too deeply; send attributes of a few levels") from None


def _checked(value: Any) -> Reading:
    if not is_reading(value):
        raise ReadingError(f"{VERSION_FIELD}: missing; a reading is an object with {VERSION_FIELD}: {VERSION}")
    version = value[VERSION_FIELD]
    if type(version) is not int or version != VERSION:
        shown = version if type(version) is int and 0 <= version < 1000 else "no small number"
        raise ReadingError(
            f"{VERSION_FIELD}: version {shown}, and this awry reads {VERSION}; run the same version of awry in the "
            "engine and in the worker"
        )
    notes: list[str] = []
    if len(value.keys() - _KNOWN):
        notes.append("reading: fields that this version does not know were left out")
    kind = _one_of(value, "kind", KINDS)
    alive = Reading(
        engine=_name(value, "engine"),
        instance=_matching(value, "instance", _INSTANCE, "32 lower hex digits"),
        sequence=_count(value, "sequence"),
        kind=kind,
        created=_time(value, "created"),
        dropped=_count(value, "dropped", default=0),
        closed=_flag(value, "closed"),
        model=side.name(clean(value.get("model")), "model", notes),
        notes=tuple(notes),
    )
    if kind == HEARTBEAT:
        return alive
    names = {each: side.name(clean(value.get(each)), each, notes) for each in _SIDE_NAMES}
    attributes = _attributes(value, notes)
    return replace(
        alive,
        id=_name(value, "id"),
        request=_request(value),
        model_identity=_identity(value),
        finish=_one_of(value, "finish", FINISHES) if value.get("finish") is not None else None,
        tokens=_tokens(value),
        tenant=names["tenant"],
        user=names["user"],
        conversation_id=names["conversation_id"],
        trace_id=names["trace_id"],
        attributes=attributes,
        verified=tuple(each for each in _VOUCHED if each in _list(value, "verified", 16) and names[each] is not None),
        roles=tuple(_role(each) for each in _list(value, "roles", MAX_TURNS)),
        probes=_unlike(_each(value, "probes", MAX_PROBES, _probe)),
        not_scored=_each(value, "not_scored", MAX_PROBES, _not_scored),
        steered=_steered(value),
        notes=tuple(notes),
    )


def _name(value: Mapping[str, Any], field_: str, where: str = "") -> str:
    found = value.get(field_)
    said: list[str] = []
    name = side.name(clean(found), field_, said) if isinstance(found, str) else None
    if name is None:
        raise ReadingError(
            f"{where}{field_}: missing, or no name of 1 to {side.MAX_NAME} characters; send it as a string"
        )
    return name


def _matching(value: Mapping[str, Any], field_: str, pattern: re.Pattern[str], form: str, where: str = "") -> str:
    found = value.get(field_)
    if not isinstance(found, str) or pattern.fullmatch(found) is None:
        raise ReadingError(f"{where}{field_}: missing, or not {form}; send the engine's own")
    return found


def _one_of(value: Mapping[str, Any], field_: str, among: Sequence[str], where: str = "") -> str:
    found = value.get(field_)
    if not isinstance(found, str) or found not in among:
        raise ReadingError(f"{where}{field_}: none of {', '.join(among)}; send one of them")
    return found


def _count(value: Mapping[str, Any], field_: str, where: str = "", default: int | None = None) -> int:
    found = value.get(field_, default)
    if type(found) is not int or not 0 <= found <= _MAX_COUNT:
        raise ReadingError(f"{where}{field_}: missing, or no whole number from 0; send a count")
    return found


def _number(found: Any, where: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ReadingError(f"{where}: missing, or no number; send a finite number")
    try:
        number = float(found)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ReadingError(f"{where}: not finite; name the probe under not_scored, with the reason")
    return number


def _flag(value: Mapping[str, Any], field_: str) -> bool:
    found = value.get(field_, False)
    if not isinstance(found, bool):
        raise ReadingError(f"{field_}: not true or false; send one of them")
    return found


def _time(value: Mapping[str, Any], field_: str) -> datetime:
    when = side.time(value.get(field_), field_, []) if isinstance(value.get(field_), str) else None
    if when is None:
        raise ReadingError(f"{field_}: missing, or no time; send ISO 8601 with its zone")
    return when


def _list(value: Mapping[str, Any], field_: str, limit: int, where: str = "") -> list[Any]:
    found = value.get(field_)
    if found is None:
        return []
    if not isinstance(found, list | tuple) or len(found) > limit:
        raise ReadingError(f"{where}{field_}: no list of at most {limit}; send fewer")
    return list(found)


def _each(
    value: Mapping[str, Any], field_: str, limit: int, read: Callable[[Mapping[str, Any], str], T]
) -> tuple[T, ...]:
    found = []
    for number, each in enumerate(_list(value, field_, limit)):
        found.append(read(_object(each, f"{field_}[{number}]"), f"{field_}[{number}]."))
    return tuple(found)


def _object(found: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise ReadingError(f"{where}: no object; send one")
    return found


def _probe(value: Mapping[str, Any], where: str) -> ProbeValue:
    turns = []
    for number, each in enumerate(_list(value, "turns", MAX_TURNS, where)):
        if not isinstance(each, list | tuple) or len(each) != 2 or type(each[0]) is not int:
            raise ReadingError(f"{where}turns[{number}]: no pair of a turn's number and a value; send [turn, value]")
        if not 0 <= each[0] < MAX_TURNS:
            raise ReadingError(f"{where}turns[{number}]: no turn from 0 to {MAX_TURNS - 1}; send its number")
        turns.append((each[0], _number(each[1], f"{where}turns[{number}]")))
    parts = _list(value, "parts", MAX_PARTS, where)
    return ProbeValue(
        _name(value, "name", where),
        _matching(value, "digest", _DIGEST, "the digest of a card", where),
        _number(value.get("value"), f"{where}value"),
        _count(value, "tokens", where),
        tuple(turns),
        tuple(_number(each, f"{where}parts[{number}]") for number, each in enumerate(parts)),
    )


def _unlike(probes: tuple[ProbeValue, ...]) -> tuple[ProbeValue, ...]:
    if len({each.name for each in probes}) < len(probes):
        raise ReadingError("probes: one is there twice; send one value a probe")
    return probes


def _request(value: Mapping[str, Any]) -> str | None:
    found = value.get("request")
    if found is None:
        return None
    if not isinstance(found, str) or not 0 < len(found) <= MAX_REQUEST or not found.strip():
        raise ReadingError(f"request: no id of 1 to {MAX_REQUEST} characters; send the engine's own")
    return cast(str, clean(found))


def _role(found: Any) -> str:
    if not isinstance(found, str) or not 0 < len(found) <= MAX_ROLE:
        raise ReadingError(f"roles: one is no word of 1 to {MAX_ROLE} characters; send those of the turns")
    return found


def _not_scored(value: Mapping[str, Any], where: str) -> NotScored:
    reason = value.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise ReadingError(f"{where}reason: missing; say why in a few words")
    return NotScored(_name(value, "name", where), clean(reason[:MAX_REASON]))


def _steered(value: Mapping[str, Any]) -> Steered | None:
    found = value.get("steered")
    if found is None:
        return None
    of = _object(found, "steered")
    return Steered(_name(of, "recipe", "steered."), _one_of(of, "why", (ASKED, FLAGGED), "steered."))


def _tokens(value: Mapping[str, Any]) -> Tokens:
    found = value.get("tokens")
    if found is None:
        return Tokens()
    of = _object(found, "tokens")
    return Tokens(*(_count(of, each, "tokens.", 0) for each in ("prompt", "response", "cached")))


def _identity(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = value.get("model_identity")
    if found is None or found == {}:
        return None
    of = _object(found, "model_identity")
    if not side.storable(of) or len(json.dumps(of)) > MAX_IDENTITY_BYTES:
        raise ReadingError(f"model_identity: over {MAX_IDENTITY_BYTES} bytes; send the identity of the card's form")
    return cast(Mapping[str, Any], clean(dict(of)))


def _attributes(value: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    found = value.get("attributes")
    if not found:
        return {}
    if not isinstance(found, Mapping):
        notes.append("attributes: dropped, not an object")
        return {}
    kept = side.attributes(clean(dict(found)), notes)
    within = bounded(kept)
    if len(within) < len(kept):
        notes.append("attributes: some dropped, over the size limit")
    return within
