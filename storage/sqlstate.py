"""What PostgreSQL's error codes (SQLSTATE) mean for awry: one table, by class and by code.

Contract: `decide(state)` is one of four actions with its reason in words; it knows every class of PostgreSQL's
appendix A, and a code that stands in the table goes before its class. The driver's own classes say too little: it
files a read-only standby under internal errors and a row that no index can hold under outages.

- `retry`: passes by itself; the same transaction is run again from its start. So is one that the server did not let in
  while a process runs (a password is being changed); at its start that is an error at once.
- `row`: something in the rows; the same rows would be refused again, others would not.
- `refuse`: the database is not as awry needs it (rights, schema, encoding); a process does not start, and one that
  runs stops, until somebody changes that.
- `stop`: a defect, of awry or of the server; nobody knows what the next try would do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Action = Literal["retry", "row", "refuse", "stop"]


@dataclass(frozen=True)
class Meaning:
    """What follows from an error, and why, in words for an operator."""

    action: Action
    reason: str


_LOST = Meaning("retry", "the connection was lost or could not be made")
_DEFECT = Meaning("stop", "a statement that this server does not take: a defect, or a server that awry does not know")
_ROW = Meaning("row", "a value that its column cannot hold")
_CHANGED = Meaning("retry", "another transaction came between")
_SYSTEM = Meaning("retry", "the server's disk or operating system failed")
_RIGHTS = Meaning("refuse", "the role may not do this; connect as the owner of awry's tables")
_SCHEMA = Meaning("refuse", "a table, column or function is missing: run awry db upgrade with this version of awry")
_POOLER = Meaning("stop", "a prepared statement is gone: a pooler gave the connection to somebody else")

# By code, or by its first two characters, the class.
_TABLE: dict[str, Meaning] = {
    **dict.fromkeys(("00", "01", "02", "03", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20"), _DEFECT),
    "08": _LOST,
    "21": Meaning("row", "one row was to be changed twice by one statement"),
    "22": _ROW,
    "22P02": Meaning("row", "a text that is no value of its column's type"),
    # What connects has made sure of UTF8: what is left is NUL, in JSON.
    "22P05": Meaning("row", "a character that no text of the database can hold, such as NUL"),
    "23": Meaning("row", "a row against a constraint of its table"),
    "24": _DEFECT,
    "25": _DEFECT,
    "25006": Meaning(
        "retry", "the server is read-only: a standby, a failover in progress, or a read replica's address"
    ),
    "25P03": Meaning("retry", "the transaction was idle for longer than idle_in_transaction_session_timeout"),
    "25P04": Meaning("retry", "the transaction took longer than transaction_timeout"),
    "26": _POOLER,
    "27": _DEFECT,
    "28": Meaning("retry", "the server does not let this user in: check user, password and pg_hba.conf"),
    "28P01": Meaning("retry", "wrong password: check user and password in database_url, or the password file"),
    **dict.fromkeys(("2B", "2D", "2F", "34", "38", "39", "3B"), _DEFECT),
    "3D": Meaning("retry", "there is no such database: check its name in database_url, or CREATE DATABASE"),
    "3F": _SCHEMA,
    "40": _CHANGED,
    "40001": Meaning("retry", "the transaction could not be put in order with another one"),
    "40P01": Meaning("retry", "two transactions waited for each other (deadlock)"),
    "42": _DEFECT,
    "42501": _RIGHTS,
    **dict.fromkeys(("42P01", "42703", "42704", "42883"), _SCHEMA),
    "42P05": _POOLER,
    "44": Meaning("row", "a row against the check of a view or a policy"),
    "53": Meaning("retry", "the server is short of resources"),
    "53100": Meaning("retry", "the server's disk is full"),
    "53200": Meaning("retry", "the server is out of memory"),
    "53300": Meaning("retry", "too many connections: max_connections of the server, or the role's or database's limit"),
    "53400": Meaning("stop", "a limit of the server's configuration, such as temp_file_limit"),
    "54": Meaning("row", "a row, or a name in it, that is larger than an index or a statement can hold"),
    "55": _DEFECT,
    "55006": Meaning("retry", "an object is in use"),
    "55P03": Meaning("retry", "a lock was not to be had within lock_timeout"),
    "57": Meaning("retry", "somebody intervened at the server"),
    "57014": Meaning("retry", "the statement took longer than statement_timeout, or somebody cancelled it"),
    "57P01": Meaning("retry", "the server stops, or somebody ended the connection"),
    "57P02": Meaning("retry", "the server restarts after the crash of another session"),
    "57P03": Meaning("retry", "the server starts or stops, and takes no connections yet"),
    "57P04": Meaning("refuse", "the database was dropped"),
    "57P05": Meaning("retry", "the connection was idle for longer than idle_session_timeout"),
    "58": _SYSTEM,
    "72": _CHANGED,
    "F0": Meaning("stop", "the server's configuration file is wrong"),
    "HV": _DEFECT,
    "P0": _DEFECT,
    "P0001": Meaning("row", "a trigger in the database refused a row (RAISE EXCEPTION)"),
    "XX": Meaning("retry", "the server met an error of its own, such as a table that was changed meanwhile"),
    "XX001": Meaning("stop", "the server's data is damaged: restore it from a backup"),
    "XX002": Meaning("stop", "an index of the server is damaged: REINDEX it"),
}

# Of a connection that the server refuses, libpq tells the words alone, and of others no code either. The words are
# PostgreSQL's and PgBouncer's, in English; in another language the server's own are all that is told.
_REFUSALS = (
    ("28P01", re.compile(r"password authentication failed|no password supplied|SASL authentication failed")),
    ("3D000", re.compile(r"database .* does not exist|no such database")),
    (
        "28000",
        re.compile(
            r"role .* does not exist|no such user|pg_hba\.conf|authentication failed|is not permitted to log in"
        ),
    ),
)

LOCK_TIMEOUT = "55P03"
STATEMENT_TIMEOUT = "57014"
READ_ONLY = "25006"


def decide(state: str | None, *, lost: bool = False, value: bool = False) -> Meaning:
    """What an error with this code means. Without a code nothing came from the server: `lost` says that the driver
    lost the connection, `value` that it cannot send a value (NUL in a text)."""
    if state is None:
        return _LOST if lost else _ROW if value else Meaning("stop", "the driver refused what it was given")
    return _TABLE.get(state) or _TABLE.get(state[:2]) or Meaning("stop", "an error code that PostgreSQL does not list")


def state_of(said: str) -> str | None:
    """The code of a refused connection, by the server's words; None for all else."""
    return next((state for state, words in _REFUSALS if words.search(said)), None)
