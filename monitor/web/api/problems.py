"""Every error of the API in one shape, RFC 9457 problem+json: `title`, `status`, `detail`, and `errors` by field.

Contract: no answer repeats what a client sent, since a note may hold a message's text; nor what an error says, since
a library's error may quote its input. What is said of a field is one of the sentences here.
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

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5

_logger = logging.getLogger("awry.api")

# What pydantic says of these holds no input. `value_error` is said by validators of ours.
_SAID = {
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
_WORDS = {
    "missing": "is missing",
    "uuid_parsing": "must be an id: a UUID",
    "uuid_type": "must be an id: a UUID",
    "int_parsing_size": "is too large",
    "string_unicode": "must be valid Unicode",
    "json_invalid": "is not JSON",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object, sent with Content-Type: application/json",
    "dict_type": "must be a JSON object, sent with Content-Type: application/json",
}


class FieldProblem(BaseModel):
    """What is wrong with one field, and how it is written."""

    field: str = Field(description="where it was looked for: path, query or body, and its name")
    problem: str


class Problem(BaseModel):
    """An error, after RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = Field(None, description="of 422: field by field")


_DESCRIBED = {
    401: "No token, or none that is good",
    403: "The token may only read",
    404: "Not known",
    408: "The body did not come in time",
    409: "What is there cannot change so",
    413: "The body is larger than 64 KiB",
    422: "A field is wrong; `errors` says which, and how it is written",
    429: "Too many requests; `Retry-After` says how many seconds to wait",
    500: "A defect of awry; `detail` has the error's class",
    503: "The database is away or busy; try again",
}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These errors as OpenAPI wants them."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _DESCRIBED[status], "content": content} for status in sorted(statuses)}


def problem(
    status: int,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    body |= {"errors": list(errors)} if errors is not None else {}
    return Response(json.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def defect(error: Exception) -> Response:
    """What nobody expected: its class goes out, its class and place into the log."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f"{Path(last[0].filename).name}:{last[0].lineno}" if last else "nowhere"
    _logger.error("unexpected %s at %s", type(error).__name__, place)
    return problem(500, f"unexpected {type(error).__name__}; the service's log says where")


def unavailable(error: Exception) -> Response:
    """The database is away, or somebody holds what is asked for."""
    _logger.error("database: %s", class_of(error))
    said = "the database is away or busy; nothing was changed"
    return problem(503, said, headers={"Retry-After": str(RETRY_SECONDS)})


def handle_problems(app: FastAPI) -> None:
    """Turn what is raised below into problems."""

    def raised(_: Request, error: Exception) -> Response:
        error = cast(HTTPException, error)
        if error.status_code == 400:
            # The body could not be read at all: no UTF-8, or nested too deeply.
            return _invalid([{"field": "body", "problem": _WORDS["json_invalid"]}])
        detail = str(error.detail)
        if detail == HTTPStatus(error.status_code).phrase:
            detail = "there is nothing at this address, or not by this method; see openapi.json"
        return problem(error.status_code, detail, headers=error.headers)

    def invalid(_: Request, error: Exception) -> Response:
        return _invalid([_field_problem(one) for one in cast(RequestValidationError, error).errors()])

    app.add_exception_handler(HTTPException, raised)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(UnknownAlertError, lambda *_: problem(404, "no alert or silence goes by this id"))
    app.add_exception_handler(TransitionError, lambda _, error: problem(409, str(error)))
    for away in (OperationalError, PoolTimeoutError):
        app.add_exception_handler(away, lambda _, error: unavailable(error))


def _invalid(errors: Sequence[Mapping[str, str]]) -> Response:
    detail = "; ".join(f"{one['field']}: {one['problem']}" for one in errors)
    return problem(422, detail, errors=errors)


def _field_problem(error: Mapping[str, Any]) -> dict[str, str]:
    kind = error["type"]
    # JSON's place is a number.
    names = error["loc"][:1] if kind == "json_invalid" else error["loc"]
    if kind in _SAID:
        said = str(error["msg"]).removeprefix("Value error, ")
    else:
        said = _WORDS.get(kind, "is not valid; see openapi.json")
    return {"field": ".".join(str(name) for name in names), "problem": said}
