"""The life of an alert: states, transitions, silences, expiry, the audit, and what is enqueued for destinations."""
