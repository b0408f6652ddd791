"""The HTTP API as an app to mount: `app.mount("/api/v1", make_api(engine))`.

Contract: speaks JSON to who holds a token (`monitor.web.auth.tokens`); its errors are problem+json. Each change is one
transaction with its audit row, by the token's name and the client's address. No answer, error or log line holds a
message's text. Limits are of this process and in memory. There is no TLS here: listen on loopback, or behind something
that has it, whose address is then the client's.

The description, /openapi.json, needs no token. There is no page of documentation, which would load its scripts from
somebody else's server.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from sqlalchemy import Engine
from starlette.middleware import Middleware

from monitor.web.api import alerts as alert_routes
from monitor.web.api import reading, silences
from monitor.web.api.envelope import Answers, Bodies
from monitor.web.api.gate import OPEN, Gate
from monitor.web.api.problems import Problem, handle_problems
from monitor.web.auth.rate_limit import Limiter

_DESCRIPTION = (
    "Alerts of awry, which reads a language model's own activations: list them, acknowledge, silence, resolve and "
    "judge them, and see what became of a message. Answers hold ids, scores and states, never a message's text."
)
_TAGS = [
    {"name": "alerts", "description": "What is wrong, who has it in hand, whether it was right"},
    {"name": "silences", "description": "Who must not be paged about what, until when"},
    {"name": "messages", "description": "What became of a message"},
    {"name": "probes", "description": "What scores them"},
    {"name": "deliveries", "description": "Whether alerts get out"},
]


def make_api(engine: Engine, limiter: Limiter | None = None) -> FastAPI:
    """The app, on an engine whose schema is at head; `limiter` is its own by default."""
    app = FastAPI(
        title="awry",
        version=version("awry"),
        description=_DESCRIPTION,
        openapi_url=OPEN,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        middleware=[
            Middleware(Answers),
            Middleware(Gate, engine=engine, limiter=limiter or Limiter()),
            Middleware(Bodies),
        ],
    )
    app.state.engine = engine
    handle_problems(app)
    for routes in (alert_routes, silences, reading):
        app.include_router(routes.router)
    _describe(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _describe(app: FastAPI) -> None:
    """Errors are answers of routes, not of functions, so their schema is added here."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                separate_input_output_schemas=False,
            )
            template = "#/components/schemas/{model}"
            schema = Problem.model_json_schema(ref_template=template)
            found["components"]["schemas"] |= schema.pop("$defs", {}) | {"Problem": schema}
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
