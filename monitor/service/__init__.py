"""The worker: read, score, store, commit; and the loops that run beside it."""
