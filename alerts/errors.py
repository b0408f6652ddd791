"""Errors of `alerts`. Messages name the field or the alert and the fix, and hold no prompt text."""

from awry.errors import AwryError


class AlertsError(AwryError):
    """Base of all errors raised by `alerts`."""


class RulesError(AlertsError):
    """A rules file that cannot be used; the message has its lines and fields."""


class UnknownAlertError(AlertsError):
    """No alert or silence goes by this id."""


class TransitionError(AlertsError):
    """An alert in this state cannot change so."""


class GrafanaError(AlertsError):
    """A Grafana that cannot be reached or refuses, or a folder that cannot be written. The message holds no token."""


def class_of(error: Exception) -> str:
    """The class of an error, of the driver's own where it is one: its text may quote a row."""
    return type(getattr(error, "orig", None) or error).__name__
