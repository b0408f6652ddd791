"""The command in the test's process, on the test's database."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from tests.support.cli import Invoke, invoke


@pytest.fixture
def run(engine: Engine, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.setenv("AWRY_DATABASE_URL", postgres_database)
    return invoke
