"""Requests that are refused: the status, a sentence without anything the client sent, and when to try again."""

from __future__ import annotations


class RefusedError(Exception):
    """A response with this status. `retry_after` is in seconds; None: the same request will be refused again.
    `drain`: bytes of the body that are read and thrown away, since a client that still writes may never read."""

    def __init__(self, status: int, detail: str, *, retry_after: int | None = None, drain: int = 0) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        self.drain = drain


class SinkError(Exception):
    """The stream did not take records. The message names no content."""


class SinkFullError(SinkError):
    """The spool is full."""
