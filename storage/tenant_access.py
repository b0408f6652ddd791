"""What a token of one tenant may see and change: a role of PostgreSQL, its rights, and row-level security.

Contract: `set_up(connection)` makes the role `awry_tenant` where the connection's role may, grants it the tables of
TABLES (and columns, where only some are meant) and gives each two policies: `awry_all` lets every role see all rows, as
before; `awry_tenant`, a restrictive one, holds that role to the rows of the tenant that the transaction names. It is
idempotent, and returns what is missing in words that say what to run; '' when all is there. Tables and partitions that
are not in TABLES are not granted at all. FORCE makes it hold for the tables' owner too, were it ever in that role.

`enter(connection, tenant)` puts the rest of a transaction into that role and tenant, and takes the time of each
statement; both end with the transaction, so it works behind a pooler that lends a connection for a transaction.
`open_tables(connection)` names tables that the role could read whole: a policy was dropped, or a right was granted to
it; then no token of a tenant is to be served.

For any other role a policy that is true costs nothing: the planner leaves it out. A role that *inherits* from
`awry_tenant` would be held to its policies and find no row: `check_not_tenant` refuses one.
"""

# ruff: noqa: S608 - our own names

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from storage.errors import SchemaError

ROLE = "awry_tenant"
STATEMENT_SECONDS = 20

_MINE = "current_setting('awry.tenant', true)"
_MY_ALERT = f"EXISTS (SELECT FROM alerts AS a WHERE a.id = alert_id AND a.tenant = {_MINE})"
# The row that was scored, among those at the same coordinates: another one may be another tenant's.
_MY_MESSAGE = (
    "EXISTS (SELECT FROM messages AS m WHERE m.source = {0}.source AND m.partition = {0}.partition "
    'AND m."offset" = {0}."offset" AND m.sub = {0}.sub AND m.day = {0}.day '
    f"AND m.status IN ('scored', 'truncated') AND m.tenant = {_MINE})"
)
# A pattern with a `*` would match other tenants' alerts too; a key alone is one alert's.
_MY_SILENCE = (
    f"(tenant = {_MINE} AND position('*' IN tenant) = 0) OR (tenant IS NULL AND dedup_key IN "
    f"(SELECT a.dedup_key FROM alerts AS a WHERE a.tenant = {_MINE}))"
)
_MY_CHANGE = (
    f"alert_id IN (SELECT a.id FROM alerts AS a WHERE a.tenant = {_MINE}) OR (alert_id IS NULL AND silence_id IN "
    "(SELECT s.id FROM silences AS s))"
)


@dataclass(frozen=True)
class _Rights:
    """The condition on a row, and what may be done with those that meet it: privilege -> columns, () for all."""

    row: str
    may: dict[str, tuple[str, ...]]


_READ: dict[str, tuple[str, ...]] = {"SELECT": ()}
_OUTBOX_TOLD = (
    *("id", "seq", "alert_id", "destination", "event", "created_at"),
    *("attempts", "delivered_at", "dead_at", "last_error", "routes", "held_by"),
)

TABLES: dict[str, _Rights] = {
    "messages": _Rights(f"tenant = {_MINE}", _READ),
    **{
        name: _Rights(_MY_MESSAGE.format(name), _READ) for name in ("scores", "head_scores", "window_scores", "answers")
    },
    "score_rollups": _Rights(f"tenant = {_MINE}", _READ),
    "alerts": _Rights(f"tenant = {_MINE}", {"SELECT": (), "UPDATE": ()}),
    "alert_messages": _Rights(_MY_ALERT, _READ),
    "silences": _Rights(_MY_SILENCE, {"SELECT": (), "INSERT": (), "UPDATE": ()}),
    "audit": _Rights(_MY_CHANGE, {"SELECT": (), "INSERT": ()}),
    # Without bodies: a notification may be of several tenants' alerts.
    "outbox": _Rights(
        _MY_ALERT,
        {"SELECT": _OUTBOX_TOLD, "INSERT": ()},
    ),
}
# Numbers alone: those by which who changes something locks it, and those of the heads that scores are of.
_OF_NOBODY = {"locks": ("SELECT", "INSERT", "UPDATE"), "head_layouts": ("SELECT",)}

_MEMBER = "pg_has_role(current_user, 'awry_tenant', 'SET')"
_SUPERUSER = "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
GRANT = "GRANT awry_tenant TO {role} WITH INHERIT FALSE, SET TRUE"
_TOO_OLD = "tokens of one tenant need PostgreSQL 16 or later"


def set_up(connection: Connection) -> str:
    """Make what is missing of role, rights and policies; in words, what this role may not make."""
    if _number(connection, "current_setting('server_version_num')::int") < 160_000:
        return _TOO_OLD
    connection.execute(text(_MAKE_ROLE))
    missing = _missing_role(connection)
    if missing:
        return missing
    schema = connection.execute(_SCHEMA).scalar_one()
    if not connection.execute(
        text(f"SELECT has_schema_privilege('{ROLE}', :schema, 'USAGE')"), {"schema": schema.strip('"')}
    ).scalar():
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {ROLE}")
    done = {row.relname: row for row in connection.execute(_STATES, {"names": list(TABLES)})}
    for name, rights in TABLES.items():
        for statement in _statements(f"{schema}.{name}", rights, done[name]):
            connection.exec_driver_sql(statement)
    for name, privileges in _OF_NOBODY.items():
        connection.exec_driver_sql(f"GRANT {', '.join(privileges)} ON {schema}.{name} TO {ROLE}")
    return ""


def missing(connection: Connection) -> str:
    """What a token of a tenant lacks on this connection, in words that say what to run; '' when it can be served."""
    if _number(connection, "current_setting('server_version_num')::int") < 160_000:
        return _TOO_OLD
    words = _missing_role(connection)
    if not words:
        rows = connection.execute(_STATES, {"names": list(TABLES)}).all()
        bare = sorted(set(TABLES) - {r.relname for r in rows if r.secured and r.all_rows and r.one_tenant})
        if bare:
            words = f"{', '.join(bare)} have no policy for tenants: run awry db upgrade"
    return words


def enter(connection: Connection, tenant: str) -> None:
    """The rest of this transaction sees and changes rows of `tenant` alone."""
    connection.execute(_ENTER, {"tenant": tenant, "timeout": f"{STATEMENT_SECONDS}s"})


def open_tables(connection: Connection) -> list[str]:
    """Tables that the role may read or change without a policy that holds it to one tenant; partitions among them."""
    return [name for name in connection.execute(_OPEN).scalars() if name not in _OF_NOBODY]


def check_not_tenant(engine: Engine) -> None:
    """SchemaError where this role inherits from `awry_tenant`: it would see no tenant's rows."""
    with engine.connect() as connection:
        if connection.execute(_INHERITS).scalar():
            role = connection.execute(text("SELECT quote_ident(current_user)")).scalar_one()
            raise SchemaError(
                f"database: the role {role} inherits from awry_tenant and would find no row; run REVOKE awry_tenant "
                f"FROM {role}; {GRANT.format(role=role)}"
            )


_ENTER = text(
    "SELECT set_config('awry.tenant', :tenant, true), set_config('statement_timeout', :timeout, true), "
    f"set_config('role', '{ROLE}', true)"
)
_SCHEMA = text("SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'messages'::regclass")
_INHERITS = text(
    "SELECT pg_has_role(current_user, r.oid, 'USAGE') AND NOT me.rolsuper AND NOT me.rolbypassrls "
    "FROM pg_roles AS r, pg_roles AS me WHERE r.rolname = 'awry_tenant' AND me.rolname = current_user"
)
# Migrations of several databases on one server may run at once.
_MAKE_ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'awry_tenant') THEN
        CREATE ROLE awry_tenant NOLOGIN NOINHERIT;
    END IF;
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
        AND NOT pg_has_role(current_user, 'awry_tenant', 'SET') THEN
        EXECUTE format('GRANT awry_tenant TO %I WITH INHERIT FALSE, SET TRUE', current_user);
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
END $$
"""
_POLICY = "EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polname = '{}' AND {})"
_HELD = "NOT p.polpermissive AND p.polcmd = '*' AND 'awry_tenant'::regrole = ANY(p.polroles)"
_IN_OUR_SCHEMA = "c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'messages'::regclass)"
_STATES = text(
    "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS secured, "
    f"{_POLICY.format('awry_all', 'p.polpermissive')} AS all_rows, {_POLICY.format(ROLE, _HELD)} AS one_tenant "
    f"FROM pg_class AS c WHERE c.relname = ANY(:names) AND c.relkind IN ('r', 'p') AND {_IN_OUR_SCHEMA}"
)
_OPEN = text(
    f"SELECT c.relname FROM pg_class AS c WHERE {_IN_OUR_SCHEMA} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') "
    f"AND (has_table_privilege('{ROLE}', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') "
    f"OR has_any_column_privilege('{ROLE}', c.oid, 'SELECT, INSERT, UPDATE')) "
    f"AND NOT (c.relrowsecurity AND {_POLICY.format(ROLE, _HELD)}) ORDER BY c.relname"
)


def _statements(table: str, rights: _Rights, done: Row[Any]) -> list[str]:
    """What brings one table there; rights are granted every time, which changes nothing where they are."""
    statements = []
    if not done.all_rows:
        statements.append(f"CREATE POLICY awry_all ON {table} USING (true) WITH CHECK (true)")
    if not done.one_tenant:
        statements.append(
            f"CREATE POLICY {ROLE} ON {table} AS RESTRICTIVE TO {ROLE} USING ({rights.row}) WITH CHECK ({rights.row})"
        )
    if not done.secured:
        statements.append(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    for privilege, columns in rights.may.items():
        only = "(" + ", ".join(f'"{name}"' for name in columns) + ")" if columns else ""
        statements.append(f"GRANT {privilege} {only} ON {table} TO {ROLE}")
    return statements


def _missing_role(connection: Connection) -> str:
    role = connection.execute(text("SELECT quote_ident(current_user)")).scalar_one()
    grant = GRANT.format(role=role)
    if not connection.execute(text(f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'")).scalar():
        make = f"CREATE ROLE awry_tenant NOLOGIN; {grant}"
        return f"the role awry_tenant is missing: as a superuser run {make}; then awry db upgrade"
    if not connection.execute(text(f"SELECT {_SUPERUSER} OR {_MEMBER}")).scalar():
        return f"the role {role} may not become awry_tenant: as a superuser run {grant}; then awry db upgrade"
    return ""


def _number(connection: Connection, expression: str) -> int:
    return int(connection.execute(text(f"SELECT {expression}")).scalar_one())
