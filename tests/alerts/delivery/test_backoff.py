"""The waits between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from alerts.delivery.backoff import MAX_RETRY_AFTER, MAX_WAIT, wait_after


@given(st.integers(1, 5000), st.none() | st.floats(0))
def test_the_wait_grows_to_its_limit_with_jitter(failures: int, asked: float | None) -> None:
    planned = min(5 * 2 ** (failures - 1), MAX_WAIT)
    assert planned <= wait_after(failures, asked) <= max(planned * 1.5, MAX_RETRY_AFTER)
    if asked is not None and asked <= MAX_RETRY_AFTER:
        assert wait_after(failures, asked) >= asked


def test_waits_differ() -> None:
    assert len({wait_after(3) for _ in range(50)}) > 40
