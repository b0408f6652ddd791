"""The numbers of the advisory locks: processes of two versions exclude each other by them during an upgrade."""

from __future__ import annotations

from storage.locks import AdvisoryLock


def test_released_numbers_never_change() -> None:
    released = {
        "PARTITIONS": 0x41575250,
        "SILENCES": 0x41575251,
        "RULES": 0x41575252,
        "ROLLUP": 0x41575255,
        "MIGRATION": 0x41575259,
    }
    assert released.items() <= {lock.name: lock.value for lock in AdvisoryLock}.items()


def test_each_lock_has_a_number_of_its_own() -> None:
    assert len(AdvisoryLock.__members__) == len({lock.value for lock in AdvisoryLock})
