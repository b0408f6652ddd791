from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.conftest import _database, _fresh_name
from tests.support.web.dashboard_rows import write_production


@pytest.fixture(scope="package")
def production(postgres_url: str, _template: str) -> Iterator[Engine]:
    """One database with the rows of `stored`, for tests that only read."""
    with _database(postgres_url, _fresh_name(), _template) as engine:
        write_production(engine)
        yield engine
