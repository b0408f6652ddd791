"""The HTTP API as an application to mount: `app.mount("/api/v1", make_api(engine))`.

Contract: JSON for holders of a token (`monitor.web.auth.tokens`); errors are problem+json. Each change is one
transaction with its audit row: the token's name and the client's address. No response, error or log line holds message
text. A token of one tenant sees and changes that tenant's rows alone, held by the database
(`monitor.web.auth.tenancy`): a route gets its transactions from `DatabaseDep`, and from nowhere else. Rate limits are
per process and in memory. There is no TLS: listen on loopback, or behind a TLS proxy, whose address is then the
client's.

The description, /openapi.json, needs no token. There is no interactive documentation, since FastAPI's loads its scripts
from a CDN.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from sqlalchemy import Engine
from starlette.middleware import Middleware

from monitor.web.api import alerts, messages, reading, silences
from monitor.web.api.dependencies import each_parameter_once
from monitor.web.api.middleware import (
    OPENAPI_PATH,
    AuthenticationMiddleware,
    BodyLimitMiddleware,
    ResponseMiddleware,
)
from monitor.web.api.problems import Problem, handle_problems
from monitor.web.auth.rate_limit import Limiter
from monitor.web.auth.tenancy import Tenancy

_DESCRIPTION = (
    "Alerts from awry, which monitors LLM traffic for misalignment by reading the model's own activations: list, "
    "acknowledge, silence, resolve and judge them, and look up the status of a message. Responses hold ids, scores and "
    "states, never message text."
)
_TAGS = [
    {"name": "alerts", "description": "List, acknowledge, resolve, reopen, judge and silence alerts"},
    {"name": "silences", "description": "Suppress notifications of matching alerts for a while"},
    {"name": "messages", "description": "Status and scores of a message"},
    {"name": "probes", "description": "The probes that score messages"},
    {"name": "deliveries", "description": "Notifications in the outbox, and the state of each destination"},
]


def make_api(engine: Engine, limiter: Limiter | None = None, replica: Engine | None = None) -> FastAPI:
    """The application, on an engine whose schema is at head; it has a `limiter` of its own by default. What is only
    read comes from `replica` where there is one."""
    app = FastAPI(
        title="awry",
        version=version("awry"),
        description=_DESCRIPTION,
        openapi_url=OPENAPI_PATH,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        middleware=[
            Middleware(ResponseMiddleware),
            Middleware(AuthenticationMiddleware, engine=engine, limiter=limiter or Limiter()),
            Middleware(BodyLimitMiddleware),
        ],
    )
    app.state.tenancy = Tenancy(engine, replica=replica)
    handle_problems(app)
    for routes in (alerts, silences, messages, reading):
        app.include_router(routes.router, dependencies=[Depends(each_parameter_once)])
    _set_openapi(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _set_openapi(app: FastAPI) -> None:
    """Adds the schema of error responses, which FastAPI does not see: no route function returns one."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                separate_input_output_schemas=False,
            )
            template = "#/components/schemas/{model}"
            schema = Problem.model_json_schema(ref_template=template)
            document["components"]["schemas"] |= schema.pop("$defs", {}) | {"Problem": schema}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
