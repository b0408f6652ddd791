"""Proof that who sent a request was written by the server's own middleware, and not by the client.

Both travel in `kv_transfer_params.awry`, which the client writes too. So the middleware adds a claim:

    {"tenant": "acme", "user": "u-7", "verified": {"fields": ["tenant", "user"], "nonce": "...", "mac": "..."}}

Contract: `mac` is HMAC-SHA256, with a key that only processes of this server have, over the named fields' values and a
nonce of the request; `verified` names the fields whose claim holds, and () for anything else, whatever a client sent.
Standard library alone: this runs inside vLLM.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from typing import Any

from awry.errors import AwryError

# Of one server: `deploy/vllm/serve.sh` makes a new one at each start.
KEY_VARIABLE = "AWRY_READINGS_KEY"
# What a gateway can vouch for.
FIELDS = ("tenant", "user")
_SHORTEST = 32
# Of the JSON of what a client sends along.
MAX_ATTRIBUTES_BYTES = 8192


class ClaimsKeyError(AwryError):
    """The key of this server's processes is missing or can be guessed."""


def kept_attributes(given: object) -> dict[str, Any] | None:
    """The attributes that a client sent along; None where they are no object, or a large one."""
    if not isinstance(given, dict):
        return None
    try:
        return given if len(json.dumps(given)) <= MAX_ATTRIBUTES_BYTES else None
    except (TypeError, ValueError, RecursionError):
        return None


def key_of(environment: Mapping[str, str] = os.environ) -> bytes:
    """The key that the processes of one server share."""
    text = environment.get(KEY_VARIABLE, "")
    if len(text) < _SHORTEST:
        raise ClaimsKeyError(
            f"{KEY_VARIABLE} is {'shorter than ' + str(_SHORTEST) + ' characters' if text else 'not set'}: "
            "start the server by deploy/vllm/serve.sh, or set it to a random value for this server alone "
            "(openssl rand -hex 32)"
        )
    return text.encode()


def sign(fields: Mapping[str, str], key: bytes, request_nonce: str) -> dict[str, Any]:
    """What goes into `verified`; `fields` are those that the gateway vouches for."""
    names = sorted(fields)
    return {
        "fields": names,
        "nonce": request_nonce,
        "mac": _mac({name: fields[name] for name in names}, key, request_nonce),
    }


def verified(params: object, key: bytes | None) -> tuple[str, ...]:
    """Which fields of `kv_transfer_params.awry` come from a trusted gateway: without a key, none."""
    if key is None or not isinstance(params, Mapping):
        return ()
    claim = params.get("verified")
    if not isinstance(claim, Mapping):
        return ()
    names, nonce, mac = claim.get("fields"), claim.get("nonce"), claim.get("mac")
    if not (isinstance(names, list) and isinstance(nonce, str) and isinstance(mac, str)):
        return ()
    if not all(isinstance(name, str) and name in FIELDS and isinstance(params.get(name), str) for name in names):
        return ()
    expected = _mac({name: params[name] for name in names}, key, nonce)
    if not hmac.compare_digest(expected.encode(), mac.encode("utf-8", "replace")):
        return ()
    return tuple(sorted(set(names)))


def _mac(fields: Mapping[str, str], key: bytes, nonce: str) -> str:
    said = json.dumps([nonce, sorted(fields.items())], separators=(",", ":"))
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()
