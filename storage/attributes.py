"""Attributes of a message that may be stored: a list of keys, each with a bounded value.

What senders add to a message may hold its text (a system prompt, tools, a copy of the request). Unless the owner stores
text anyway (privacy `full`), only these keys are kept: names of things, settings and counts, none of which holds text
in any format that awry reads.

Contract: `allowed(attributes)` keeps numbers, booleans and identifiers (one word of visible ASCII) under keys of
`ALLOWED_KEYS`, and whatever is under the owner's `extra` keys; all within a size.
`bounded(attributes)` keeps all keys within a size, for privacy `full`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

ALLOWED_KEYS = frozenset(
    {
        # Tracing and CloudEvents.
        *("traceparent", "tracestate", "span_id", "parent_span_id", "ce_id", "ce_source", "ce_specversion", "ce_time"),
        *("ce_type", "ce_subject", "ce_dataschema", "datacontenttype"),
        # Who served it, and how.
        *("provider", "operation", "api", "service", "environment", "region", "gateway", "route", "deployment"),
        *(
            "request_id",
            "response_id",
            "response_model",
            "call_type",
            "status",
            "status_code",
            "error_type",
            "key_alias",
        ),
        *("team", "organization", "cache_hit", "stream", "latency_ms", "cost"),
        # Settings of the request.
        *("temperature", "top_p", "top_k", "max_tokens", "max_output_tokens", "seed", "n", "frequency_penalty"),
        *("presence_penalty", "tool_choice", "reasoning_effort", "service_tier"),
        # What came back.
        *("finish_reason", "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"),
        *("cached_tokens", "reasoning_tokens", "n_choices"),
        # What an engine says of itself beside its readings.
        *("engine", "engine_instance", "engine_sequence", "verified", "steered_by", "steered_why"),
    }
)
# A string that names something: visible ASCII without spaces, shorter than text is.
_IDENTIFIER = re.compile(r"[\x21-\x7e]{1,256}")
# Bytes of all attributes of a message as JSON.
MAX_BYTES = 8192


def allowed(attributes: dict[str, Any], extra: Collection[str] = ()) -> dict[str, Any]:
    """The attributes that are kept under privacy `sha256` and `none`."""
    kept: dict[str, Any] = {}
    for key, value in attributes.items():
        named = isinstance(value, str) and _IDENTIFIER.fullmatch(value)
        if key in extra or (key in ALLOWED_KEYS and (named or isinstance(value, bool | int | float))):
            kept[key] = value
    return bounded(kept)


def bounded(attributes: dict[str, Any]) -> dict[str, Any]:
    """As many attributes, in their order, as fit into MAX_BYTES of JSON."""
    left = MAX_BYTES
    kept = {}
    for key, value in attributes.items():
        size = len(json.dumps({key: value}, default=str))
        if size <= left:
            kept[key] = value
            left -= size
    return kept
