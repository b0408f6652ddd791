"""What an upgrade would do: the migrations that a database lacks, in order, each with what it locks and how long.

Contract: `pending(engine)` changes nothing. The words are each migration's own, PLAN in its module; times are of ten
million messages on two cores. All of them run in one transaction, so that locks are held until the last one is done;
indexes that are declared by a migration are built afterwards (`storage.index_builds`).
"""

from __future__ import annotations

from dataclasses import dataclass

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from storage.database import migrations
from storage.index_builds import missing_indexes


@dataclass(frozen=True)
class Step:
    """A migration: its number, its title, what it locks and how long."""

    revision: str
    title: str
    plan: str


def pending(engine: Engine) -> list[Step]:
    """The migrations that would run, and builds of indexes that were stopped."""
    scripts = ScriptDirectory.from_config(migrations())
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        missing = len(missing_indexes(connection)) if current is not None else 0
    revisions = reversed(list(scripts.iterate_revisions("head", current or "base")))
    steps = [
        Step(each.revision, (each.doc or "").splitlines()[0], getattr(each.module, "PLAN", "not stated"))
        for each in revisions
    ]
    if missing:
        plan = "blocks nobody: one partition at a time, while workers write; some seconds for a million rows"
        steps.append(Step("indexes", f"{missing} indexes of partitions are missing and would be built", plan))
    return steps
