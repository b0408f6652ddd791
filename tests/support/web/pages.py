"""The pages as tests use them: open to this machine, and sessions without signing in first."""

from __future__ import annotations

from sqlalchemy import Engine

from monitor.web.auth import sessions, tokens
from monitor.web.auth.options import AccessOptions
from monitor.web.auth.tokens import Principal
from tests.support.alerts.alert_scenes import ANNA

OPEN = AccessOptions(page_open="loopback")


def session(engine: Engine, secret: str) -> str:
    """The secret of a session that this token began."""
    with engine.begin() as connection:
        found = tokens.find(connection, secret)
        assert isinstance(found, Principal)
        return sessions.begin(connection, found, ANNA, "token")
