"""FastAPI dependencies and other parts that the routes share: database, actor, error responses, alerts as schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from sqlalchemy import Connection, Engine

from alerts.lifecycle.audit import Actor
from monitor.web.api import schemas
from monitor.web.api.problems import problem_responses

# `middleware` authenticates; this only declares it in the OpenAPI description.
BEARER = Security(HTTPBearer(auto_error=False, scheme_name="token", description="`awry tokens create` makes one"))
_COMMON = (401, 408, 413, 422, 429, 500, 503)


def error_responses(*more: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route that reads: `more`, and those of every route."""
    return problem_responses(*_COMMON, *more)


def write_error_responses(*more: int) -> dict[int | str, dict[str, Any]]:
    """The same of a route that changes something."""
    return error_responses(403, *more)


def _actor(request: Request) -> Actor:
    actor: Actor = request.state.actor
    return actor


class Database:
    """Transactions on the engine of the app."""

    def __init__(self, request: Request) -> None:
        self._engine: Engine = request.app.state.engine

    @contextmanager
    def read_only(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            # Everything in a response is from one snapshot.
            yield connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def read_write(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection


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
        "silenced_until": row["silenced_until"] if row["state"] == "silenced" else None,
    }
