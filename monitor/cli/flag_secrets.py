"""Secrets that were written as flags: every user of the machine sees a process's arguments.

Contract: the flag still counts; one line on standard error says what to use instead, and does not repeat the secret.
"""

from __future__ import annotations

import os
from urllib.parse import parse_qs, urlsplit

from monitor.cli.output import say

_SEEN = "is in this command's arguments, which every user of the machine can read (ps)"


def warn_of_password(url: str | None) -> str | None:
    """The database's URL as it is; warns of a password in it."""
    if url is not None and has_password(url):
        say(
            f"a password {_SEEN}: leave it out and put it into a file that PGPASSFILE names (libpq's passfile), or put "
            "the whole address into a file that AWRY_DATABASE_URL_FILE names"
        )
    return url


def warn_of_token(token: str) -> str:
    """The token as it is; warns of one that is not the environment's."""
    if token and token != os.environ.get("GRAFANA_TOKEN"):
        say(f"a token {_SEEN}: put it into the environment variable GRAFANA_TOKEN")
    return token


def has_password(url: str) -> bool:
    """Whether a URL holds a password, before its host or among its parameters."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.password) or bool({"password", "sslpassword"} & set(parse_qs(parts.query)))
