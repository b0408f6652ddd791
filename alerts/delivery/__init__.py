"""The outbox: grouping, leases, backoff, a channel for each destination; `deliver` sends what is due."""
