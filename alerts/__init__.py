"""Alerts: rules, their lifecycle, the outbox and the senders. Imports `storage` and the leaves of `awry`."""

from awry import moved

moved.install()
