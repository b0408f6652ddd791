"""Logs: JSON lines on standard error, with ids and counts, never prompt text.

Contract: a processor drops every field that could hold text, whatever a caller passes; exceptions are logged by class,
since a library's error may quote its input.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from monitor.telemetry.throttle import Throttle

# Fields that hold, or could hold, text of users or models.
FORBIDDEN = frozenset({"prompt", "messages", "content", "response", "text", "payload", "answer", "plain", "mitigated"})

# Whose own logs become ours; "awry" are our packages that know nothing of the service.
_LIBRARIES = ("kafka", "uvicorn", "asyncio", "python_multipart", "awry")


def _drop_text(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in FORBIDDEN & event.keys():
        del event[name]
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
    return event


def configure() -> None:
    """JSON logs on standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_text,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # looked up at each call: tests replace it
        cache_logger_on_first_use=False,
    )
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = [_ToStructlog(logging.WARNING)]
        library.propagate = False


class _ToStructlog(logging.Handler):
    """Passes a library's records on to structlog, as one line of JSON like all others; of one that says the same for
    each of its clients, a line now and then."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._throttle = Throttle()

    def emit(self, record: logging.LogRecord) -> None:
        left_out = 0 if record.name.startswith("awry") else self._throttle(f"{record.name} {record.msg}"[:500])
        if left_out is None:
            return
        # Further lines are tracebacks and objects, whose words may quote anything.
        said = next(iter(record.getMessage().splitlines()), "")
        more: dict[str, Any] = {"left_out": left_out} if left_out else {}
        if record.exc_info and record.exc_info[0] is not None:
            more["error"] = record.exc_info[0].__name__
        logger().log(record.levelno, said, library=record.name, **more)


def logger() -> Any:
    """The service's logger."""
    return structlog.get_logger()
