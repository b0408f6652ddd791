"""FastAPI dependencies and other parts that the routes share: database, actor, error responses, alerts as schemas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from sqlalchemy import Connection

from alerts.lifecycle.audit import Actor
from monitor.web.api import schemas
from monitor.web.api.problems import problem_responses
from monitor.web.auth.tenancy import Tenancy
from monitor.web.data_as_of import note
from storage.replica import as_of

# `middleware` authenticates; this only declares it in the OpenAPI description.
BEARER = Security(HTTPBearer(auto_error=False, scheme_name="token", description="`awry tokens create` makes one"))
_COMMON = (401, 403, 408, 413, 422, 429, 500, 503)


def error_responses(*more: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route that reads: `more`, and those of every route."""
    return problem_responses(*_COMMON, *more)


def write_error_responses(*more: int) -> dict[int | str, dict[str, Any]]:
    """The same of a route that changes something."""
    return error_responses(*more)


def _actor(request: Request) -> Actor:
    actor: Actor = request.state.actor
    return actor


def each_parameter_once(request: Request) -> None:
    """Refuses a query parameter that is given twice, of which one would be passed over, and any on a route that has
    none."""
    known: set[str] = set()
    for field in request.scope["route"].dependant.query_params:
        known |= set(getattr(field.field_info.annotation, "model_fields", (field.alias,)))
    given = Counter(name for name, _ in request.query_params.multi_items())
    problems: list[tuple[str | None, str]]
    problems = [(name, "is given twice; give it once") for name in sorted(known) if given[name] > 1]
    if given and not known:
        problems = [(None, "takes no parameters here")]
    elif not problems and any(number > 1 for number in given.values()):
        problems = [(None, f"has a field that is not known here; known are {', '.join(sorted(known))}")]
    if problems:
        errors = [
            {"type": "value_error", "loc": ("query", name) if name else ("query",), "msg": said}
            for name, said in problems
        ]
        raise RequestValidationError(errors)


class Database:
    """Transactions of a request: one snapshot each, and of the token's tenant where it has one."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._tenancy: Tenancy = request.app.state.tenancy
        self.tenant: str | None = request.state.principal.tenant

    @contextmanager
    def read_only(self) -> Iterator[Connection]:
        with self._tenancy.reading(self.tenant) as connection:
            note(self._request, as_of(connection))
            yield connection

    def read_write(self) -> AbstractContextManager[Connection]:
        return self._tenancy.changing(self.tenant)


DatabaseDep = Annotated[Database, Depends()]
ActorDep = Annotated[Actor, Depends(_actor)]


def as_alert(row: Mapping[Any, Any]) -> schemas.Alert:
    """A row of `alerts`."""
    return schemas.Alert(**alert_fields(row))


def alert_fields(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The fields of `schemas.Alert` out of a row of `alerts`."""
    fields = {name: row[name] for name in schemas.Alert.model_fields if name in row}
    return fields | {
        "score": row["top_score"],
        "inhibited_by": row["inhibited_by"] or [],
        "silenced_until": row["silenced_until"] if row["state"] == "silenced" else None,
    }
