"""The outbox: grouping, leases, backoff, and one channel a destination. `deliver` sends what is due, `loop` repeats it."""
