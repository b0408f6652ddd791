"""Migration 0010: tokens and everything that is stored survive both ways; on the way back no policy stays."""

from __future__ import annotations

from sqlalchemy import Engine, text

from storage.database import upgrade
from storage.tenant_access import missing
from tests.storage.test_database import differences
from tests.storage.test_migrations import migrate

POLICIES = text("SELECT count(*) FROM pg_policies")
SECURED = text("SELECT relname FROM pg_class WHERE relrowsecurity OR relforcerowsecurity")


def fill_before_tenants(engine: Engine) -> None:
    """A filled database of schema 0009."""
    for statement in (
        "INSERT INTO api_tokens (id, name, secret_sha256, scope, created_by, expires_at) "
        "VALUES (gen_random_uuid(), 'anna', '\\x01', 'act', 'root', now() + interval '1 day'), "
        "(gen_random_uuid(), 'gateway', '\\x02', 'ingest', 'root', now() + interval '1 day')",
        'INSERT INTO messages (source, partition, "offset", sub, payload_sha256, day, status, tenant) '
        "VALUES ('topic', 0, 1, 0, 'aa', current_date, 'scored', 'acme'), "
        "('topic', 0, 2, 0, 'aa', current_date, 'scored', NULL)",
        "INSERT INTO alerts (id, dedup_key, rule, probe, tenant, severity, state, count, top_score, threshold) "
        "VALUES (gen_random_uuid(), 'k', 'threshold', 'drift', 'acme', 'warning', 'open', 1, 0.9, 0.5)",
    ):
        with engine.begin() as connection:
            connection.execute(text(statement))


def held(engine: Engine) -> dict[str, list[str]]:
    queries = {
        "api_tokens": "SELECT name || scope || encode(secret_sha256, 'hex') || expires_at FROM api_tokens",
        "messages": 'SELECT to_jsonb(m)::text FROM (SELECT source, "offset", tenant FROM messages) AS m',
        "alerts": "SELECT id::text || dedup_key || state FROM alerts",
    }
    with engine.connect() as connection:
        return {name: sorted(connection.execute(text(query)).scalars()) for name, query in queries.items()}


def test_what_is_stored_survives_both_ways(empty_engine: Engine) -> None:
    migrate(empty_engine, "0009")
    fill_before_tenants(empty_engine)
    before = held(empty_engine)
    upgrade(empty_engine)
    assert differences(empty_engine) == []
    assert held(empty_engine) == before
    with empty_engine.connect() as connection:
        assert missing(connection) == ""
        assert connection.execute(text("SELECT count(*) FROM api_tokens WHERE tenant IS NOT NULL")).scalar() == 0
    with empty_engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO api_tokens (id, name, secret_sha256, scope, tenant, created_by, expires_at) "
                "VALUES (gen_random_uuid(), 'acme', '\\x03', 'read', 'acme', 'root', :until)"
            ),
            {"until": "2100-01-01"},
        )
    migrate(empty_engine, "0009", down=True)
    with empty_engine.connect() as connection:
        assert connection.execute(POLICIES).scalar() == 0
        assert connection.execute(SECURED).scalars().all() == []
        rights = text("SELECT has_table_privilege('awry_tenant', 'messages', 'SELECT')")
        assert connection.execute(rights).scalar() is False
        # Nothing would hold it to its tenant any more.
        live = text("SELECT name FROM api_tokens WHERE revoked_at IS NULL ORDER BY name")
        assert connection.execute(live).scalars().all() == ["anna", "gateway"]
    upgrade(empty_engine)
    with empty_engine.connect() as connection:
        assert missing(connection) == ""
