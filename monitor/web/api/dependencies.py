"""What routes share: the engine and the actor of a request, and rows of tables as answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from sqlalchemy import Connection, Engine

from alerts.lifecycle.audit import Actor
from monitor.web.api import schemas
from monitor.web.api.problems import described

# The gate lets in; this says so in the description.
BEARER = Security(HTTPBearer(auto_error=False, scheme_name="token", description="`awry token create` makes one"))
_ALWAYS = (401, 408, 413, 422, 429, 500, 503)


def errors(*more: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route: these, and those that any may give."""
    return described(*_ALWAYS, *more)


def writing(*more: int) -> dict[int | str, dict[str, Any]]:
    """The same for one that changes something."""
    return errors(403, *more)


def _actor(request: Request) -> Actor:
    actor: Actor = request.state.actor
    return actor


class Database:
    """The engine of the app, a transaction at a time."""

    def __init__(self, request: Request) -> None:
        self._engine: Engine = request.app.state.engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            # Everything in an answer is of one moment.
            yield connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection


Tables = Annotated[Database, Depends()]
Who = Annotated[Actor, Depends(_actor)]


def as_alert(row: Mapping[Any, Any]) -> schemas.Alert:
    """A row of `alerts`."""
    return schemas.Alert(**alert_fields(row))


def alert_fields(row: Mapping[Any, Any]) -> dict[str, Any]:
    """What an answer says of a row of `alerts`."""
    found = {name: row[name] for name in schemas.Alert.model_fields if name in row}
    return found | {
        "score": row["top_score"],
        "silenced_until": row["silenced_until"] if row["state"] == "silenced" else None,
    }
