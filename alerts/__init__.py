"""Alerts: rules, their lifecycle, the outbox and the senders. Imports `storage` and no other part of awry."""

from awry import moved

moved.install()
