"""Numbers of PostgreSQL's advisory locks that are one for the whole database.

Contract: a number never changes, and none is used again: while an upgrade is rolled out, processes of two versions
exclude each other by it. Locks on one row or partition are hashed from a text instead, where they are taken.
"""

from __future__ import annotations

from enum import IntEnum


class AdvisoryLock(IntEnum):
    """Any number will do, as long as every process of awry uses the same one."""

    PARTITIONS = 0x41575250  # who makes or drops partitions
    SILENCES = 0x41575251  # who creates or expires silences; shared by those who read them to open alerts
    RULES = 0x41575252  # who evaluates rate and monitor rules
    SOURCES = 0x41575253  # who gives a log a source name
    ROLLUP = 0x41575255  # who brings the rollups up to date
    MIGRATION = 0x41575259  # who migrates the schema
