"""Rows of alerts' events, of the audit and of texts, without names; and the count of what was erased.

Contract: `forget_events`, `forget_audit` and `forget_texts` change the rows under a condition as a `Forget` says, and
count those that changed. `contains` is a condition that finds rows in which names may be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, Text, cast, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from storage.forget import Forget, like_forms
from storage.schema import audit, outbox


@dataclass
class Erased:
    """What was deleted or changed, by table: numbers of rows, and of some tables their keys, so that a row that is
    changed again counts once. `dry`: nothing is locked or changed, and the same rows are counted."""

    dry: bool = False
    numbers: dict[str, int] = field(default_factory=dict)
    keys: dict[str, set[Any]] = field(default_factory=dict)

    def count(self, name: str, rows: int) -> None:
        self.numbers[name] = self.numbers.get(name, 0) + max(0, rows)

    def touch(self, name: str, keys: Iterable[Any]) -> None:
        self.keys.setdefault(name, set()).update(keys)

    def add(self, other: Erased) -> None:
        for name, rows in other.numbers.items():
            self.count(name, rows)
        for name, keys in other.keys.items():
            self.touch(name, keys)

    @property
    def rows(self) -> dict[str, int]:
        """By table, without what is nothing."""
        found = {name: self.numbers.get(name, 0) + len(self.keys.get(name, ())) for name in self.numbers | self.keys}
        return {name: rows for name, rows in found.items() if rows}


def held(connection: Connection, query: Select[Any], done: Erased) -> Sequence[Row[Any]]:
    """Rows that nobody else changes until the end of the transaction."""
    return connection.execute(query if done.dry else query.with_for_update()).all()


def forget_events(connection: Connection, condition: ColumnElement[bool], forget: Forget, done: Erased) -> None:
    for row in held(connection, select(outbox).where(condition).order_by(outbox.c.seq), done):
        left: dict[str, Any] = {name: forget.json(getattr(row, name)) for name in ("body", "page")}
        left["group_key"] = forget.group_key(row.group_key, row.body) if row.group_key is not None else None
        left["last_error"] = forget.text(row.last_error) if row.last_error is not None else None
        change(connection, outbox, row, left, done)


def forget_audit(connection: Connection, condition: ColumnElement[bool], forget: Forget, done: Erased) -> None:
    for row in connection.execute(select(audit).where(condition).order_by(audit.c.id)).all():
        change(connection, audit, row, {name: forget.json(getattr(row, name)) for name in ("before", "after")}, done)


def forget_texts(
    connection: Connection, table: Table, column: str, names: Sequence[str], forget: Forget, done: Erased
) -> None:
    for row in connection.execute(select(table).where(contains([table.c[column]], names))).all():
        change(connection, table, row, {column: forget.text(getattr(row, column))}, done)


def change(connection: Connection, table: Table, row: Row[Any], left: dict[str, Any], done: Erased) -> None:
    changed = {name: value for name, value in left.items() if value != getattr(row, name)}
    if not changed:
        return
    (key,) = table.primary_key.columns
    done.touch(table.name, [row._mapping[key.name]])
    if not done.dry:
        connection.execute(update(table).where(key == row._mapping[key.name]).values(changed))


def contains(columns: Sequence[Any], names: Collection[str]) -> ColumnElement[bool]:
    """Rows whose columns, as text, hold one of the names; which words those are is looked at afterwards."""
    return or_(
        *(
            func.strpos(func.coalesce(cast(column, Text), ""), form) > 0
            for column in columns
            for form in like_forms(names)
        )
    )
