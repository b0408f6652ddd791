"""The service: stream in, score, store, commit; and the `awry` command."""
