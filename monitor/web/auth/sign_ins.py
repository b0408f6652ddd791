"""Single sign-ons on their way: state, nonce and PKCE verifier, kept until the browser comes back.

Contract: every function works in the caller's transaction. `begin` gives a Begun for a browser, known by the secret of
a cookie; `take` gives it back by its state to that browser, once, within LASTING, and None otherwise. At most MOST are
on their way at once, so that strangers cannot fill the table; more is a BusyError.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, delete, func, insert, select

from monitor.web.auth.tokens import secret_digest
from storage.errors import BusyError
from storage.schema import sign_ins

LASTING = timedelta(minutes=10)
MOST = 10_000


@dataclass(frozen=True)
class Begun:
    """One sign-on; `next` is the path to go to afterwards."""

    state: str
    nonce: str
    verifier: str
    next: str


def begin(connection: Connection, browser: str, next_path: str) -> Begun:
    """Remember a sign-on of the browser with this cookie; those that never came back are deleted."""
    connection.execute(delete(sign_ins).where(sign_ins.c.expires_at <= func.now()))
    if int(connection.execute(select(func.count()).select_from(sign_ins)).scalar_one()) >= MOST:
        raise BusyError("too many sign-ons are on their way; try again in some minutes")
    state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
    begun = Begun(state, nonce, verifier, next_path)
    connection.execute(
        insert(sign_ins).values(
            state_sha256=secret_digest(begun.state),
            browser_sha256=secret_digest(browser),
            nonce=begun.nonce,
            verifier=begun.verifier,
            next=begun.next,
            expires_at=func.now() + LASTING,
        )
    )
    return begun


def take(connection: Connection, browser: str, state: str) -> Begun | None:
    """The sign-on of this state, which ends with that, whoever brings it."""
    row = connection.execute(
        delete(sign_ins)
        .where(sign_ins.c.state_sha256 == secret_digest(state))
        .returning(sign_ins, (sign_ins.c.expires_at > func.now()).label("in_time"))
    ).one_or_none()
    if row is None or not row.in_time or bytes(row.browser_sha256) != secret_digest(browser):
        return None
    return Begun(state, row.nonce, row.verifier, row.next)
