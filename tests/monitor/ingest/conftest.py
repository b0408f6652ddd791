from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from sqlalchemy import Engine

from tests.support.ingest.receiver import HeldSink, client, receiving
from tests.support.web.api import token


@pytest.fixture
def sink() -> HeldSink:
    return HeldSink()


@pytest.fixture
def secret(engine: Engine) -> str:
    return token(engine, "gateway", "ingest")


@pytest.fixture
def http(engine: Engine, sink: HeldSink, secret: str) -> Iterator[httpx2.Client]:
    """A client with a token, of a receiver whose records are in `sink`."""
    with receiving(engine, sink) as url, client(url, secret) as made:
        yield made
