"""Error responses of the API as RFC 9457 problem+json: `title`, `status`, `detail`, and `errors` by field.

Contract: no response repeats what a client sent, since a note may hold message text, nor the text of an exception,
since a library's may quote its input. What is reported about a field is one of the messages here.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from alerts.errors import TransitionError, UnknownAlertError, class_of
from monitor.web.auth.refusals import refused
from monitor.web.auth.tenancy import TenantAccessError, TenantRefusedError

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
UNSERVED = "tokens of one tenant cannot be served; the service's log says what to run"

_logger = logging.getLogger("awry.api")

# Error types whose message in pydantic repeats no input. `value_error` comes from the validators
# of `requests`, and from a bad cursor.
_SAFE_TYPES = {
    "literal_error",
    "string_too_long",
    "string_too_short",
    "string_type",
    "int_parsing",
    "int_type",
    "int_from_float",
    "greater_than_equal",
    "less_than_equal",
    "value_error",
}
_MESSAGES = {
    "missing": "is missing",
    "uuid_parsing": "must be a UUID",
    "uuid_type": "must be a UUID",
    "int_parsing_size": "is too large",
    "string_unicode": "must be valid Unicode",
    "json_invalid": "is not JSON",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object, sent with Content-Type: application/json",
    "dict_type": "must be a JSON object, sent with Content-Type: application/json",
}


class FieldProblem(BaseModel):
    """What is wrong with one field, and how to write it."""

    field: str = Field(description="location (path, query or body) and name, such as `body.for`")
    problem: str


class Problem(BaseModel):
    """An error as RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = Field(None, description="for 422: one entry per invalid field")


_DESCRIPTIONS = {
    401: "No token, or an invalid, expired or revoked one",
    403: "The token has the scope `read`, or is of one tenant, which may not have this",
    404: "Not found",
    408: "The body did not arrive in time",
    409: "Not possible in the current state",
    410: "Erased",
    413: "The body is larger than 64 KiB",
    422: "Invalid fields; `errors` lists them with the expected form",
    429: "Too many requests; wait for `Retry-After` seconds",
    500: "Internal error; `detail` names the exception's class",
    503: "The database is unavailable or busy, or cannot hold a token to its tenant; try again",
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses as `responses` of a route, for the OpenAPI description."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _DESCRIPTIONS[status], "content": content} for status in sorted(statuses)}


def problem(
    status: int,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error response."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    body |= {"errors": list(errors)} if errors is not None else {}
    return Response(json.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def internal_error(error: Exception) -> Response:
    """An unexpected exception: its class goes to the client, its class and place to the log."""
    log_unexpected(error)
    return problem(500, f"unexpected {type(error).__name__}; the service's log says where")


def log_unexpected(error: Exception) -> None:
    """Its class and place, without its text, which may quote a row."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f"{Path(last[0].filename).name}:{last[0].lineno}" if last else "nowhere"
    _logger.error("unexpected %s at %s", type(error).__name__, place)


def tenant_refused(request: Request, error: Exception) -> Response:
    """A token of one tenant asked for what is not open to it."""
    refuse_tenant(request, request.state.principal.name)
    return problem(403, str(error))


def refuse_tenant(request: Request, name: str) -> None:
    """The log line and the count of that; the path is left out, since it may hold names."""
    refused("tenant", request.client.host if request.client else "unknown", f"{name} may not have what it asked for")


def database_unavailable(error: Exception) -> Response:
    """The database does not respond, or a row stayed locked for too long."""
    _logger.error("database: %s", class_of(error))
    detail = "the database is unavailable or busy; nothing was changed"
    return problem(503, detail, headers={"Retry-After": str(RETRY_SECONDS)})


def tenants_unserved(error: Exception) -> Response:
    """The database cannot hold a token to its tenant."""
    log_unserved(error)
    return problem(503, UNSERVED, headers={"Retry-After": str(RETRY_SECONDS)})


def log_unserved(error: Exception) -> None:
    """What an operator has to run; who asked is not told."""
    _logger.error("%s", error)


def handle_problems(app: FastAPI) -> None:
    """Turn exceptions of the routes into problem responses."""

    def http_error(_: Request, error: Exception) -> Response:
        error = cast(HTTPException, error)
        if error.status_code == 400:
            # The body could not be decoded: not UTF-8, or nested too deeply.
            return _invalid([{"field": "body", "problem": _MESSAGES["json_invalid"]}])
        detail = str(error.detail)
        if detail == HTTPStatus(error.status_code).phrase:
            detail = "no such path, or not with this method; see openapi.json"
        return problem(error.status_code, detail, headers=error.headers)

    def invalid(_: Request, error: Exception) -> Response:
        return _invalid([_field_problem(one) for one in cast(RequestValidationError, error).errors()])

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(UnknownAlertError, lambda *_: problem(404, "no alert or silence has this id"))
    app.add_exception_handler(TransitionError, lambda _, error: problem(409, str(error)))
    app.add_exception_handler(TenantRefusedError, tenant_refused)
    app.add_exception_handler(TenantAccessError, lambda _, error: tenants_unserved(error))
    for database_error in (OperationalError, PoolTimeoutError):
        app.add_exception_handler(database_error, lambda _, error: database_unavailable(error))


def _invalid(errors: Sequence[Mapping[str, str]]) -> Response:
    detail = "; ".join(f"{one['field']}: {one['problem']}" for one in errors)
    return problem(422, detail, errors=errors)


def _field_problem(error: Mapping[str, Any]) -> dict[str, str]:
    error_type = error["type"]
    # The location of a syntax error ends with a position in the text.
    names = error["loc"][:1] if error_type == "json_invalid" else error["loc"]
    if error_type in _SAFE_TYPES:
        message = str(error["msg"]).removeprefix("Value error, ")
    else:
        message = _MESSAGES.get(error_type, "is not valid; see openapi.json")
    return {"field": ".".join(str(name) for name in names), "problem": message}
