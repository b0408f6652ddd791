"""Transactions of a request: those of a token of one tenant see and change that tenant's rows alone.

Contract: `reading` and `changing` give a connection in a transaction. For a tenant it is put into the role that
row-level security holds to it (`storage.tenant_access`) before anything else runs; None sees all. What is not open to
that role, a table or a row, is a TenantRefusedError. Where the database cannot hold a tenant's token to its tenant, as
after a policy was dropped, TenantAccessError says why: looked at anew every CHECK_SECONDS, so a policy that goes is
noticed that much later at the latest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from storage import tenant_access
from storage.errors import StorageError

CHECK_SECONDS = 10.0
# A replica that lags for longer than this shows a change later than whoever made it expects.
FRESH_SECONDS = 10.0
AWAY_SECONDS = 10.0

_INSUFFICIENT_PRIVILEGE = "42501"


class TenantAccessError(StorageError):
    """The database cannot hold a token to its tenant; the message says what to run."""


class TenantRefusedError(StorageError):
    """A token of one tenant asked for what is not open to it."""


class Tenancy:
    """Transactions on one engine, or read from a `replica` of its database: but for FRESH_SECONDS after a change, so
    that whoever made it sees it, and for AWAY_SECONDS after the replica did not answer. `clock` is in seconds."""

    def __init__(
        self, engine: Engine, clock: Callable[[], float] = time.monotonic, *, replica: Engine | None = None
    ) -> None:
        self._engine = engine
        self._replica = replica
        self._primary_until = float("-inf")
        self._clock = clock
        self._checked_until = float("-inf")
        self._lock = threading.Lock()

    @contextmanager
    def reading(self, tenant: str | None) -> Iterator[Connection]:
        """One snapshot; nothing can be changed."""
        with self._connected() as connection:
            reading = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with _refusing(tenant):
                self._enter(reading, tenant)
                yield reading

    @contextmanager
    def changing(self, tenant: str | None) -> Iterator[Connection]:
        """Committed at the end of the block."""
        self._primary_until = self._clock() + FRESH_SECONDS
        with self._engine.begin() as connection, _refusing(tenant):
            self._enter(connection, tenant)
            yield connection

    def _connected(self) -> Connection:
        if self._replica is None or self._clock() < self._primary_until:
            return self._engine.connect()
        try:
            return self._replica.connect()
        except DBAPIError:
            self._primary_until = self._clock() + AWAY_SECONDS
            return self._engine.connect()

    def _enter(self, connection: Connection, tenant: str | None) -> None:
        if tenant is None:
            return
        with self._lock:
            if self._clock() >= self._checked_until:
                self._check(connection)
                self._checked_until = self._clock() + CHECK_SECONDS
        tenant_access.enter(connection, tenant)

    def _check(self, connection: Connection) -> None:
        why = tenant_access.missing(connection)
        if not why and (tables := tenant_access.open_tables(connection)):
            why = f"{', '.join(tables[:5])} would show all tenants' rows: revoke what awry_tenant may there"
        if why:
            raise TenantAccessError(f"tenant: {why}")


@contextmanager
def _refusing(tenant: str | None) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if tenant is not None and getattr(error.orig, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE:
            raise TenantRefusedError(
                "tenant: this is another tenant's, or not kept by tenant: it takes a token without one"
            ) from None
        raise
