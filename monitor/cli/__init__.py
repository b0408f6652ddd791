"""The `awry` command: `app` is its entry point, then one file a noun."""
