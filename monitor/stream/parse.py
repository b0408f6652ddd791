"""From a record's payload to wire messages, whatever the format; the one way in.

Contract: `parse(payload, headers)` gives at least one WireMessage or Invalid, in order; the index of each is its
sub-index. Only formats of MAY_BE_EMPTY may give none: a request of OpenTelemetry that is about other things. It never
raises for what is in the payload. A JSON array is read element by element (unless it is itself one conversation), at
most MAX_MESSAGES of them. Formats are recognised by their content, unless the record's header `awry_format` or the
setting `format` names one.

Headers of a record: CloudEvents in binary mode (`ce_id`, `ce_time`, ...) fill in `id` and `timestamp` where the payload
has none; they and `traceparent` are kept as attributes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from monitor.readings.schema import ReadingError, is_reading
from monitor.stream.formats import FORMATS, Format, fields, gzipped, otlp, recognise
from monitor.stream.formats.content import read_response, read_tools, read_turns
from monitor.stream.formats.draft import Draft, UnreadableError
from monitor.stream.formats.inner import without_surrogates
from monitor.stream.formats.mapping import Mapper
from monitor.stream.formats.reading import DUPLICATE_KEYS, MAX_MESSAGES, Reading
from monitor.stream.readings import READING, as_message
from monitor.stream.record import Record
from monitor.stream.wire import Invalid, WireMessage

MAY_BE_EMPTY = frozenset((otlp.NAME,))
FORMAT_HEADER = "awry_format"

# Headers of a record that are kept; others are the transport's own.
_COPIED_HEADERS = ("traceparent", "tracestate")
_EVENT_PREFIX = "ce_"

# Names that servers written in Go take in any case.
_FOLDED = frozenset(
    (
        *("messages", "prompt", "content", "role", "model", "input", "system", "tools", "contents", "parts", "text"),
        "request",
    )
)
_READER_FAILED = "payload: its reader failed"

Parsed = WireMessage | Invalid
Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True)
class ParseOptions:
    """`format` names one of FORMATS, `mapping` (with the format) or `auto`; `mapping` are JMESPath expressions by field
    of the wire message. `readings`: records are readings of an engine, and nothing else is read."""

    format: str = "auto"
    mapping: Mapping[str, str] = field(default_factory=dict)
    readings: bool = False


class Parser:
    """`parse` under options that are checked once. Raises SettingsError for them."""

    def __init__(self, options: ParseOptions = ParseOptions()) -> None:
        self._mapper = Mapper(options.mapping) if options.mapping else None
        self._format = options.format
        self._readings = options.readings

    def __call__(self, payload: bytes, headers: Headers = ()) -> list[Parsed]:
        """The messages; the index is the sub-index."""
        copied = _copied(headers) if headers else {}
        named = copied.pop(FORMAT_HEADER, None) or self._format
        notes: list[str] = []
        if payload[:2] == gzipped.MAGIC:
            try:
                payload = gzipped.unpacked(payload)
            except UnreadableError as error:
                return [Invalid(str(error))]
        if otlp.is_protobuf(payload, headers):
            try:
                value: Any = otlp.decode(payload, named, headers)
            except UnreadableError as error:
                return [Invalid(str(error), format=otlp.NAME)]
        else:
            value = _decode(payload, notes)
        if isinstance(value, Invalid):
            return [value]
        if isinstance(value, list) and (self._readings or not _readable(recognise(value, named), value)):
            parsed = [each for element in value[:MAX_MESSAGES] for each in self._read(element, named, copied, notes)]
            if len(value) > MAX_MESSAGES:
                parsed.append(Invalid(f"payload: an array of over {MAX_MESSAGES} messages, the rest was not read"))
            return parsed if parsed or value else [Invalid("payload: an empty array")]
        return self._read(value, named, copied, notes)

    def _read(self, value: Any, named: str, copied: dict[str, str], notes: Sequence[str]) -> list[Parsed]:
        if not isinstance(value, dict | list):
            return [Invalid(_unknown(value))]
        try:
            if self._readings:
                return [as_message(value, notes)]
            if named == "mapping" or (named == "auto" and self._mapper is not None and self._mapper.matches(value)):
                if self._mapper is None:
                    raise UnreadableError("format: mapping, and no mapping is set")
                found, drafts = "mapping", self._mapper.read(value)
            else:
                format_ = recognise(value, named)
                if format_ is None or not _readable(format_, value):
                    raise UnreadableError(_unknown(value))
                found, drafts = format_.NAME, format_.read(value)
        except UnreadableError as error:
            return [_unread(value, str(error), None)]
        except ReadingError as error:
            return [_unread(value, str(error), READING)]
        except RecursionError:
            return [_unread(value, "payload: nested too deeply", None)]
        except Exception as error:  # a defect of a reader costs one message, and is seen
            return [_unread(value, f"{_READER_FAILED} ({type(error).__name__})", None)]
        if not drafts and found in MAY_BE_EMPTY:
            return []
        if not drafts:
            return [_unread(value, f"{found}: holds no message", found, "skipped")]
        parsed = [_finished(draft, found, copied, notes) for draft in drafts[:MAX_MESSAGES]]
        if len(drafts) > MAX_MESSAGES:
            parsed.append(Invalid(f"payload: over {MAX_MESSAGES} messages, the rest was not read", format=found))
        return parsed


def parse(payload: bytes, headers: Headers = ()) -> list[Parsed]:
    """Read one payload, its format recognised."""
    return _DEFAULT(payload, headers)


def _decode(payload: bytes, notes: list[str]) -> Any:
    if not payload:
        return Invalid("payload: empty")
    twice = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        made = dict(items)
        if len(made) != len(items):
            twice = True
        for name in [name for name in made if not name.islower()]:
            folded = name.casefold()
            if folded in made:
                twice = True
            elif folded in _FOLDED:
                made[folded] = made.pop(name)
        return made

    try:
        # Decoded here: left to itself, json would also guess UTF-16 and let lone surrogates through.
        value = json.loads(payload.decode("utf-8-sig"), object_pairs_hook=pairs, parse_int=_integer)
    except UnicodeDecodeError:
        return Invalid("payload: not UTF-8")
    except RecursionError:
        return Invalid("payload: nested too deeply")
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        return Invalid(f"payload: not JSON{where}")
    if b"\\u" in payload and (b"\\ud" in payload or b"\\uD" in payload):
        try:
            cleaned = without_surrogates(value)
        except RecursionError:
            return Invalid("payload: nested too deeply")
        if cleaned != value:
            notes.append("payload: lone surrogates became U+FFFD")
        value = cleaned
    if twice:
        notes.append(DUPLICATE_KEYS)
    if not isinstance(value, dict | list):
        return Invalid(f"payload: a JSON {_kind(value)}, not an object")
    return value


def _finished(draft: Draft, format_: str, copied: dict[str, str], notes: Sequence[str]) -> Parsed:
    try:
        return _finish(draft, format_, copied, notes)
    except RecursionError:
        return Invalid("messages: nested too deeply", format=format_)
    except Exception as error:
        return Invalid(f"{_READER_FAILED} ({type(error).__name__})", format=format_)


def _finish(draft: Draft, format_: str, copied: dict[str, str], notes: Sequence[str]) -> Parsed:
    """The wire message of a draft: contents flattened, side fields checked."""
    noted = [*notes, *draft.notes]
    names = {
        each: fields.name(getattr(draft, each), each, noted)
        for each in ("id", "tenant", "user", "model", "conversation_id")
    }
    timestamp, trace_id = draft.timestamp, draft.trace_id
    if copied:
        if copied.get("ce_specversion"):
            names["id"] = names["id"] or fields.name(copied.get("ce_id"), "id", noted)
            timestamp = copied.get("ce_time") if timestamp is None else timestamp
        if trace_id is None:
            trace_id = _trace_id(copied.get("traceparent"))
        draft.attributes = {**copied, **draft.attributes}
    reading = Reading(noted)
    if draft.skip is not None:
        return _skipped(draft.skip, names, format_, reading)
    turns = read_turns(draft.turns, reading)
    response = read_response(draft.response, reading) if draft.response is not None else None
    tools = read_tools(draft.tools, reading) if draft.tools is not None else []
    answered = response is not None and bool(response.strip())
    readable = any(turn.get("tool_calls") or _has_text(turn["content"], reading.unread) for turn in turns)
    if not (readable or (turns and (answered or tools))):
        kinds = ", ".join(sorted(reading.unread))
        reason = f"nothing readable: only {kinds}" if kinds else "nothing readable: every content is empty"
        if answered:
            reason = "nothing readable: a response without its request"
        return _skipped(reason, names, format_, reading)
    return WireMessage(
        names["id"],
        turns,
        response,
        tools,
        names["model"],
        names["tenant"],
        names["user"],
        names["conversation_id"],
        fields.time(timestamp, "timestamp", noted),
        fields.name(trace_id, "trace_id", noted),
        fields.attributes(draft.attributes, noted) if draft.attributes else {},
        format_,
        tuple(noted),
        reading.unread,
    )


def _has_text(content: str, unread: dict[str, int]) -> bool:
    """Whether there is anything beside the markers of parts without text."""
    for kind in unread:
        content = content.replace(f"[{kind}]", "")
    return bool(content.strip())


def _skipped(reason: str, names: dict[str, str | None], format_: str, reading: Reading) -> Invalid:
    return Invalid(
        reason,
        names["id"],
        "skipped",
        names["tenant"],
        names["user"],
        names["model"],
        names["conversation_id"],
        format_,
        tuple(reading.notes),
        reading.unread,
    )


def _unread(value: Any, reason: str, format_: str | None, status: Any = "invalid") -> Invalid:
    """An Invalid with the names that can be read where most formats have them."""
    if not isinstance(value, dict):
        return Invalid(reason, status=status, format=format_)
    ignored: list[str] = []
    found = {each: fields.name(value.get(each), each, ignored) for each in ("id", "tenant", "user", "model")}
    conversation = fields.name(value.get("conversation_id"), "conversation_id", ignored)
    return Invalid(reason, found["id"], status, found["tenant"], found["user"], found["model"], conversation, format_)


def _readable(format_: Format | None, value: Any) -> bool:
    """Whether a value can be given to a reader: an object, or what it takes for one conversation."""
    return format_ is not None and (isinstance(value, dict) or format_.recognises(value))


def _unknown(value: Any) -> str:
    if isinstance(value, dict) and type(size := value.get("awry_oversize")) is int and 0 <= size < 1 << 40:
        return f"payload: {size} bytes, over what the topic takes"
    if not isinstance(value, dict):
        return f"payload: a JSON {_kind(value)}, not an object"
    if is_reading(value):
        return "payload: a reading of an engine; read it with awry run --readings"
    return "payload: no known format; see awry check, or set format or mapping"


def _copied(headers: Headers) -> dict[str, str]:
    return {
        name: raw.decode("utf-8", "replace")[: fields.MAX_NAME]
        for name, raw in headers
        if raw is not None and (name in _COPIED_HEADERS or name == FORMAT_HEADER or name.startswith(_EVENT_PREFIX))
    }


def _trace_id(traceparent: str | None) -> str | None:
    """The trace of a W3C traceparent (version, trace id, parent id, flags)."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else None


def _integer(digits: str) -> int | float:
    """Python refuses to read numbers of over 4,300 digits; such a one is treated as 1e999 is."""
    return int(digits) if len(digits) <= 1000 else math.inf


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", dict: "object"}
    return names.get(type(value), "null")


def read_messages(record: Record, parser: Parser) -> Record:
    """The record with its messages; none in a tombstone, nor in what is over the size limit."""
    if record.tombstone or record.payload is None or record.messages is not None:
        return record
    return replace(record, messages=tuple(parser(record.payload, record.headers)))


_DEFAULT = Parser()

__all__ = ["FORMATS", "MAX_MESSAGES", "ParseOptions", "Parsed", "Parser", "parse"]
