"""Row-level security in the database itself: what the role of a tenant can read and change, table by table.

`foreign` is the probe: it must find the other tenant's rows as soon as a policy is gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from monitor.web.auth.tenancy import Tenancy, TenantAccessError
from storage import schema, tenant_access
from storage.database import check_schema, connect, upgrade
from storage.errors import SchemaError
from storage.tenant_access import TABLES, enter, missing, open_tables, set_up
from tests.support.web.tenants import CANARY, OTHER, OWN, fill

# Every table that awry has is decided on: it is kept by tenant, or the role has no right on it.
CLOSED = {
    *("api_tokens", "web_sessions", "sign_ins", "sources", "probes", "workers", "rule_states", "destinations"),
    *("score_histograms", "head_rollups", "rollup_state"),
}


@contextmanager
def as_tenant(engine: Engine, tenant: str = OWN) -> Iterator[Connection]:
    with engine.connect() as connection:
        enter(connection, tenant)
        yield connection


def foreign(engine: Engine, table: str) -> list[str] | None:
    """The other tenant's rows that OWN's token could read; None where the role may not read the table."""
    columns = "*"
    rights = TABLES.get(table)
    if rights is not None and rights.may["SELECT"]:
        columns = ", ".join(f'"{name}"' for name in rights.may["SELECT"])
    query = text(f'SELECT to_jsonb(t)::text FROM (SELECT {columns} FROM "{table}") AS t')  # noqa: S608 - our own names
    try:
        with as_tenant(engine) as connection:
            rows = list(connection.execute(query).scalars())
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == "42501":
            return None
        raise
    # Scores have no word of their own: the other tenant's are at offset 2.
    return [row for row in rows if OTHER in row or CANARY in row or '"offset": 2' in row]


def names(engine: Engine) -> list[str]:
    """All tables and partitions."""
    with engine.connect() as connection:
        query = text(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        return list(connection.execute(query).scalars())


def test_no_table_shows_another_tenants_rows(engine: Engine) -> None:
    fill(engine)
    found = {name: foreign(engine, name) for name in names(engine)}
    assert {name for name, rows in found.items() if rows} == set()
    open_to_role = {name for name, rows in found.items() if rows is not None}
    # Of partitions none is open: a policy on the table says nothing about them.
    assert open_to_role == set(TABLES) | set(tenant_access._OF_NOBODY)
    with engine.connect() as connection:
        assert open_tables(connection) == []
        assert missing(connection) == ""


def test_every_table_is_decided_on(engine: Engine) -> None:
    known = set(TABLES) | set(tenant_access._OF_NOBODY) | CLOSED
    assert set(schema.metadata.tables) >= CLOSED
    with_tenant = {name for name, table in schema.metadata.tables.items() if "tenant" in table.columns}
    assert with_tenant <= known, "a table with a tenant is in TABLES, or here under CLOSED"
    with as_tenant(engine) as connection:
        for name in set(names(engine)) - set(TABLES) - set(tenant_access._OF_NOBODY):
            allowed = text(
                "SELECT has_table_privilege(CAST(:name AS text), 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')"
            )
            assert not connection.execute(allowed, {"name": name}).scalar(), name


@pytest.mark.parametrize("table", sorted(TABLES))
def test_the_probe_sees_a_policy_that_is_gone(engine: Engine, table: str) -> None:
    """Dropped, switched off, or opened: each is seen, and no token of a tenant is served any more."""
    fill(engine)
    for gone in (
        f"DROP POLICY awry_tenant ON {table}",
        f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
    ):
        with engine.begin() as connection:
            connection.execute(text(gone))
        assert foreign(engine, table), gone
        with pytest.raises(TenantAccessError, match=table), Tenancy(engine).reading(OWN):
            pass
        with engine.begin() as connection:
            assert set_up(connection) == ""
        assert not foreign(engine, table)


def test_a_right_on_a_partition_is_noticed(engine: Engine) -> None:
    fill(engine)
    with engine.begin() as connection:
        connection.execute(text("GRANT SELECT ON messages_default TO awry_tenant"))
    with pytest.raises(TenantAccessError, match="messages_default"), Tenancy(engine).reading(OWN):
        pass


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alerts SET state = 'resolved' WHERE tenant = 'umbrella' RETURNING id",
        "UPDATE silences SET ends_at = now() WHERE tenant = 'umbrella' RETURNING id",
        "SELECT id FROM alerts WHERE tenant = 'umbrella' FOR UPDATE",
    ],
)
def test_rows_of_another_tenant_are_not_there_to_change(engine: Engine, change: str) -> None:
    fill(engine)
    with as_tenant(engine) as connection:
        assert connection.execute(text(change)).all() == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alerts SET tenant = 'umbrella' WHERE tenant = 'acme'",
        "INSERT INTO audit (who, via, action, alert_id) SELECT 'x', 'api', 'resolve', CAST(:alert AS uuid)",
        "INSERT INTO outbox (id, alert_id, destination, event, body) "
        "SELECT gen_random_uuid(), CAST(:alert AS uuid), 'pager', 'alert.resolved', '{}'",
        "INSERT INTO silences (id, tenant, severity, ends_at, comment, created_by) "
        "VALUES (gen_random_uuid(), 'umbrella', 'critical', now(), '', 'x')",
        "INSERT INTO messages SELECT * FROM messages",
        "DELETE FROM alerts",
        "DELETE FROM messages",
        "UPDATE messages SET tenant = 'acme'",
        "UPDATE outbox SET dead_at = now()",
        "DELETE FROM audit",
        "TRUNCATE silences",
        "CREATE TABLE mine (x int)",
    ],
)
def test_the_database_refuses(engine: Engine, change: str) -> None:
    _, other = fill(engine)
    with as_tenant(engine) as connection, pytest.raises(ProgrammingError) as refused:
        connection.execute(text(change), {"alert": str(other.alert)} if ":alert" in change else {})
    assert getattr(refused.value.orig, "sqlstate", None) == "42501"


def test_role_and_tenant_end_with_the_transaction(engine: Engine) -> None:
    fill(engine)
    now = text("SELECT current_user, current_setting('awry.tenant', true), current_setting('statement_timeout')")
    with engine.connect() as connection:
        before = tuple(connection.execute(now).one())
        connection.rollback()
        for end in ("commit", "rollback"):
            enter(connection, OWN)
            assert tuple(connection.execute(now).one()) == ("awry_tenant", OWN, "20s")
            getattr(connection, end)()
            after = tuple(connection.execute(now).one())
            assert (after[0], after[1] or None, after[2]) == (before[0], before[1] or None, before[2])
            connection.rollback()


def test_without_a_tenant_the_role_sees_nothing(engine: Engine) -> None:
    fill(engine)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL ROLE awry_tenant"))
        for table in set(TABLES) - {"outbox"}:
            assert connection.execute(text(f'SELECT count(*) FROM "{table}"')).scalar() == 0, table  # noqa: S608


@contextmanager
def owned(server: Engine, make: str) -> Iterator[Engine]:
    """A database of a role of its own that is no superuser, made with these options."""
    name = f"owner_{uuid.uuid4().hex[:8]}"
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'x' {make}"))
        connection.execute(text(f"CREATE DATABASE {name} OWNER {name}"))
    engine = connect(server.url.set(database=name, username=name, password="x").render_as_string(hide_password=False))
    try:
        yield engine
    finally:
        engine.dispose()
        with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            connection.execute(text(f"DROP OWNED BY {name}; DROP ROLE {name}"))


def test_the_owner_is_told_what_to_run_where_it_may_make_no_role(engine: Engine) -> None:
    with owned(engine, "NOCREATEROLE") as own:
        upgrade(own)
        role = own.url.username
        with own.connect() as connection:
            assert f"GRANT awry_tenant TO {role} WITH INHERIT FALSE, SET TRUE" in missing(connection)
        with engine.begin() as connection:
            connection.execute(text(f"GRANT awry_tenant TO {role} WITH INHERIT FALSE, SET TRUE"))
        upgrade(own)
        fill(own)
        assert {name: rows for name in TABLES if (rows := foreign(own, name))} == {}
        # Under FORCE its owner sees what it saw.
        with own.connect() as connection:
            assert connection.execute(text("SELECT count(DISTINCT tenant) FROM messages")).scalar() == 2
            plan = "\n".join(connection.execute(text("EXPLAIN SELECT * FROM messages WHERE source = 's'")).scalars())
        assert "awry.tenant" not in plan
        assert "SubPlan" not in plan
        assert "One-Time Filter" not in plan


def test_a_role_that_inherits_is_refused_at_the_start(engine: Engine) -> None:
    """The policies of the tenants' role would hold for it too, and a worker would find no row."""
    with owned(engine, "NOCREATEROLE") as own:
        upgrade(own)
        role = own.url.username
        check_schema(own)
        with engine.begin() as connection:
            connection.execute(text(f"GRANT awry_tenant TO {role} WITH INHERIT TRUE"))
        with pytest.raises(SchemaError, match=f"the role {role} inherits from awry_tenant"):
            check_schema(own)


def test_it_is_the_same_role_by_whatever_url(engine: Engine) -> None:
    """A role that only connects, as dashboards do, sees all tenants."""
    fill(engine)
    name = f"reader_{uuid.uuid4().hex[:8]}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'x' IN ROLE awry_reader"))
    url = make_url(engine.url).set(username=name, password="x")
    reader = create_engine(url)
    try:
        with reader.connect() as connection:
            assert set(connection.execute(text("SELECT tenant FROM messages")).scalars()) == {OWN, OTHER}
    finally:
        reader.dispose()
        with engine.begin() as connection:
            connection.execute(text(f"DROP ROLE {name}"))
