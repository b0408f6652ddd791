"""Tenants behind PgBouncer in transaction mode: one connection of the server is lent to everybody in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from monitor.web.api.app import make_api
from monitor.web.auth.rate_limit import Limiter
from storage.database import connect
from tests.support.at_once import at_once
from tests.support.pgbouncer import pgbouncer
from tests.support.web.tenants import CANARY, OTHER, OWN, Tenant, fill, rows_of_other, token

ROUNDS = 15


@pytest.fixture
def pooled(engine: Engine) -> Iterator[Engine]:
    with pgbouncer(engine, pool_size=1) as url:
        through = connect(url)
        try:
            yield through
        finally:
            through.dispose()


def test_a_connection_that_others_had_shows_nothing_of_theirs(engine: Engine, pooled: Engine) -> None:
    own, other = fill(engine)
    app = make_api(pooled, Limiter(requests=100_000))
    secrets = {name: token(engine, "read", name) for name in (OWN, OTHER)}
    everybody = token(engine, "read", None)

    def asking(secret: str, expected: Callable[[str], bool]) -> Callable[[], list[str]]:
        client = TestClient(app, headers={"Authorization": f"Bearer {secret}"})

        def ask() -> list[str]:
            wrong = []
            for _ in range(ROUNDS):
                for path in ("/alerts", "/silences", "/precision"):
                    found = client.get(path)
                    if found.status_code != 200 or (path != "/precision" and not expected(found.text)):
                        wrong.append(f"{path} {found.status_code} {found.text}")
                # An error ends a transaction in the middle; role and tenant must end with it.
                wrong += [path for path in ("/probes",) if client.get(path).status_code not in (200, 403)]
            return wrong

        return ask

    came = at_once(
        [
            asking(secrets[OWN], lambda said: OWN in said and OTHER not in said and CANARY not in said),
            asking(secrets[OTHER], lambda said: CANARY in said and f'"{OWN}"' not in said),
            asking(everybody, lambda said: CANARY in said and f'"{OWN}"' in said),
        ]
    )
    assert came == [[], [], []]
    for at, status in ((own.at, 200), (other.at, 404)):
        client = TestClient(app, headers={"Authorization": f"Bearer {secrets[OWN]}"})
        assert client.get(f"/messages/{at}").status_code == status


def test_changes_too(engine: Engine, pooled: Engine) -> None:
    own, other = fill(engine)
    secret, before = token(engine, "act"), rows_of_other(engine)
    client = TestClient(make_api(pooled), headers={"Authorization": f"Bearer {secret}"})

    def resolve(tenant: Tenant) -> int:
        return client.post(f"/alerts/{tenant.alert}/resolve").status_code

    assert (resolve(other), resolve(own)) == (404, 200)
    assert rows_of_other(engine) == before
