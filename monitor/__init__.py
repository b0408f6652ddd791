"""The service: stream in, score, store, commit; and the `awry` command."""

from awry import moved

moved.install()
