"""The life of an alert: states, transitions, silences, expiry, the audit, and what is enqueued for destinations."""

from awry.moved import package_in_place_of

__getattr__ = package_in_place_of(__name__)
