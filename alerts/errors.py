"""Errors of `alerts`. Messages name the field or the alert and the fix, and hold no prompt text."""


class AlertsError(Exception):
    """Base of all errors raised by `alerts`."""


class RulesError(AlertsError):
    """A rules file that cannot be used; the message has its lines and fields."""


class UnknownAlertError(AlertsError):
    """No alert or silence goes by this id."""


class TransitionError(AlertsError):
    """An alert in this state cannot change so."""
