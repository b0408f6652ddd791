"""A reading as the message that the worker stores: who it is of, what the engine says of it, and no text.

Contract: `as_message(value, notes)` is the wire message of a decoded record, or ReadingError. What the engine says of
itself (instance, number, tokens, what it vouches for, whether it steered) goes into attributes that no client can set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monitor.readings.schema import HEARTBEAT, Reading, check
from monitor.stream.wire import WireMessage

# The format of such messages.
READING = "reading"
NOT_VERIFIED = "{}: as the client says, the server does not vouch for it"
_OWN = ("engine", "engine_instance", "engine_sequence", "verified", "steered_by", "steered_why", "finish_reason")
_OWN_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")


def as_message(value: Any, notes: Sequence[str] = ()) -> WireMessage:
    """See the module."""
    reading = check(value)
    if reading.kind == HEARTBEAT:
        return WireMessage(None, [], format=READING, reading=reading)
    claimed = [
        NOT_VERIFIED.format(name)
        for name, given in (("tenant", reading.tenant), ("user", reading.user))
        if given is not None and name not in reading.verified
    ]
    return WireMessage(
        reading.id,
        [],
        model=reading.model or reading.engine,
        tenant=reading.tenant,
        user=reading.user,
        conversation_id=reading.conversation_id,
        timestamp=reading.created,
        trace_id=reading.trace_id,
        attributes=_attributes(reading),
        format=READING,
        notes=(*notes, *reading.notes, *claimed),
        reading=reading,
    )


def _attributes(reading: Reading) -> dict[str, Any]:
    tokens, steered = reading.tokens, reading.steered
    own = {
        "engine": reading.engine.replace(" ", "/"),
        "engine_instance": reading.instance,
        "engine_sequence": reading.sequence,
        "verified": ",".join(reading.verified) or None,
        "steered_by": steered.recipe if steered is not None else None,
        "steered_why": steered.why if steered is not None else None,
        "finish_reason": reading.finish,
    }
    own |= dict(zip(_OWN_TOKENS, (tokens.prompt, tokens.response, tokens.cached), strict=True))
    sent = {name: value for name, value in reading.attributes.items() if name not in (*_OWN, *_OWN_TOKENS)}
    # The engine's own first: what is over the size limit is cut from the end.
    return {name: value for name, value in own.items() if value is not None} | sent
