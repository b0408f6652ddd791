"""The header `Awry-Data-As-Of`: up to when a response has what the primary has, where a read replica gave it.

Contract: `note` says of a request what `storage.replica.as_of` found in its transaction; the oldest counts.
`header_of` is what the response then has: a time of RFC 3339 in UTC with milliseconds. Without a replica, and for what
was read from the primary, there is no header.
"""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.types import Scope

HEADER = "Awry-Data-As-Of"
_STATE = "data_as_of"


def note(request: Request, moment: datetime | None) -> None:
    """What a transaction of this request has read is as of this time."""
    before: datetime | None = getattr(request.state, _STATE, None)
    if moment is not None and (before is None or moment < before):
        setattr(request.state, _STATE, moment)


def header_of(scope: Scope) -> dict[str, str]:
    """To be added to the response of this request."""
    moment: datetime | None = scope.get("state", {}).get(_STATE)
    if moment is None:
        return {}
    return {HEADER: moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
