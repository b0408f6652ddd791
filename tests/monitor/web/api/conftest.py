from __future__ import annotations

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine

from monitor.web.api.app import make_api
from tests.support.web.api import Client, token


@pytest.fixture
def app(engine: Engine) -> FastAPI:
    return make_api(engine)


@pytest.fixture
def act(engine: Engine, app: FastAPI) -> Client:
    """Holds a token that may act."""
    return Client(app, token(engine, "soar", "act"))


@pytest.fixture
def read(engine: Engine, app: FastAPI) -> Client:
    """Holds one that may read."""
    return Client(app, token(engine, "wall", "read"))
