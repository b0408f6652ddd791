"""Errors of the service. Messages name the setting and the fix, and hold no prompt text."""

from awry.errors import AwryError


class MonitorError(AwryError):
    """Base of all errors raised by `monitor`."""


class SettingsError(MonitorError):
    """A setting that cannot be used; the message names it and where it came from."""


class SourceError(MonitorError):
    """A source that cannot be read."""


class OutputError(MonitorError):
    """An output that cannot be written."""


class BrokerError(MonitorError):
    """The embedded Kafka cannot be fetched or started."""


class ClusterError(MonitorError):
    """A Kafka cluster that cannot be reached or used."""


class ClusterAwayError(ClusterError):
    """No broker of the cluster answers."""


class TooManyDeadError(MonitorError):
    """So many messages cannot be scored that the worker stops instead of putting all of them aside."""
