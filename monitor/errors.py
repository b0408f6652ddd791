"""Errors of the service. Messages name the setting and the fix, and hold no prompt text."""


class MonitorError(Exception):
    """Base of all errors raised by `monitor`."""


class SettingsError(MonitorError):
    """A setting that cannot be used; the message names it and where it came from."""


class SourceError(MonitorError):
    """A source that cannot be read."""


class OutputError(MonitorError):
    """An output that cannot be written."""
