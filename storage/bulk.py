"""Bulk inserts: many rows into one table by one statement.

Contract: `insert_rows` inserts dictionaries of columns in the order of the table's key, so that two workers that write
the same rows cannot deadlock; `insert_new` also returns which were new. The rows are sent as one JSON text, which
PostgreSQL parses by the columns' own types: several times faster than a parameter a value, and one constant statement a
table. Columns of type real[] may hold a thousand numbers a row: those of all rows are one binary parameter
(`storage.real_arrays`), and the JSON says which of them are a row's.

A column that a row leaves out, or has as None, is NULL; columns with a default of the server are always left to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import ARRAY, REAL, Connection, CursorResult, Float, Row, Table, TextClause, text
from sqlalchemy.dialects import postgresql

from storage.real_arrays import RealArray, enable


def insert_rows(
    connection: Connection,
    table: Table,
    rows: Sequence[dict[str, Any]],
    *,
    update: tuple[tuple[str, ...], str] | None = None,
) -> int:
    """Number of rows added or updated. A row whose key is known is left alone, or, with `update` (columns, condition),
    gets these columns where the condition on `old` and `excluded` holds."""
    if not rows:
        return 0
    return int(_execute(connection, table, rows, _statement(table, update, ())).rowcount)


def insert_new(
    connection: Connection, table: Table, rows: Sequence[dict[str, Any]], returning: tuple[str, ...]
) -> Sequence[Row[Any]]:
    """These columns of the rows that were added; rows whose key is known are left alone."""
    if not rows:
        return ()
    return _execute(connection, table, rows, _statement(table, None, returning)).all()


def _execute(
    connection: Connection, table: Table, rows: Sequence[dict[str, Any]], statement: TextClause
) -> CursorResult[Any]:
    ordered = sorted(rows, key=itemgetter(*(c.name for c in table.primary_key)))
    reals: dict[str, RealArray] = {}
    for name in _real_arrays(table):
        ordered, reals[name] = _apart(ordered, name)
    if reals:
        enable(connection)
    return connection.execute(statement, {"rows": _encoded(table, ordered), **reals})


def _real_arrays(table: Table) -> list[str]:
    """The columns of type real[]."""
    return [c.name for c in table.columns if isinstance(c.type, ARRAY) and isinstance(c.type.item_type, REAL)]


def _apart(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[dict[str, Any]], RealArray]:
    """The rows with the numbers of the first and the last value in place of an array, and the values of all rows. An
    empty array ends before it begins, and is empty in SQL as well."""
    values: list[float] = []
    pointing = []
    for row in rows:
        rest = {key: value for key, value in row.items() if key != name}
        own = row.get(name)
        if own is not None:
            rest[f"{name}_first"] = len(values) + 1
            values.extend(own)
            rest[f"{name}_last"] = len(values)
        pointing.append(rest)
    return pointing, RealArray(values)


@cache
def _statement(table: Table, update: tuple[tuple[str, ...], str] | None, returning: tuple[str, ...]) -> TextClause:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    columns = [c for c in table.columns if c.server_default is None]
    names = _quoted(c.name for c in columns)
    apart = _real_arrays(table)
    types = ", ".join(
        f'"{c.name}_first" integer, "{c.name}_last" integer'
        if c.name in apart
        else f'"{c.name}" {c.type.compile(dialect)}'
        for c in columns
    )
    values = ", ".join(
        f'(CAST(:{c.name} AS real[]))[new."{c.name}_first" : new."{c.name}_last"]' if c.name in apart else f'"{c.name}"'
        for c in columns
    )
    conflict = "DO NOTHING"
    if update is not None:
        changes = ", ".join(f'"{name}" = excluded."{name}"' for name in update[0])
        conflict = f"({_quoted(c.name for c in table.primary_key)}) DO UPDATE SET {changes} WHERE {update[1]}"
    return text(
        f"INSERT INTO {table.name} AS old ({names}) "  # noqa: S608 - names of the schema
        f"SELECT {values} FROM json_to_recordset(CAST(:rows AS json)) AS new ({types}) ON CONFLICT {conflict}"
        + (f" RETURNING {_quoted(returning)}" if returning else "")
    )


def _quoted(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _encoded(table: Table, rows: Sequence[dict[str, Any]]) -> str:
    numbers = [c.name for c in table.columns if isinstance(c.type, Float)]
    lists = [c.name for c in table.columns if isinstance(c.type, ARRAY) and isinstance(c.type.item_type, Float)]
    filled = [{name: value for name, value in row.items() if value is not None} for row in rows]
    for row in filled:
        for name in numbers:
            if name in row:
                row[name] = _finite(row[name])
        for name in lists:
            if name in row:
                row[name] = [None if each is None else _finite(each) for each in row[name]]
    return json.dumps(filled, default=str, ensure_ascii=False, separators=(",", ":"))


def _finite(number: float) -> float | str:
    """JSON has no number that is not finite; as a string PostgreSQL reads it."""
    return number if math.isfinite(number) else str(number)
