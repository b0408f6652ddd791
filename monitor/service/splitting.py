"""Stores a batch although the database refuses a row: in halves, until the message of that row stands alone.

Contract: `store_split(batch, store, refused)` calls `store` (one transaction) with parts of the batch, in order, so
that each message is stored once. One that is refused alone is told to `refused`, and stored as a `failed` message with
the reason: the class of the error with its SQLSTATE, and the constraint, no text. Where that row is refused too, as by
a check of the tenant, it is stored without what its sender wrote; where the database does not take that either, this
raises RowRefusedError, and what was stored until then stays. All other errors go through.

Lines of a transaction are written before it commits: where an alert was refused, and not a row of the message, lines of
this batch are written again, and the last one of a message says what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from monitor.service.batch_rows import Outcome, ProcessedMessage
from monitor.stream.wire import Invalid, WireMessage
from storage.errors import RowRefusedError

Store = Callable[[Sequence[ProcessedMessage]], object]


def store_split(
    batch: Sequence[ProcessedMessage], store: Store, refused: Callable[[ProcessedMessage, str], object]
) -> None:
    """Store all messages of a batch."""
    try:
        store(batch)
    except RowRefusedError as error:
        if len(batch) == 1:
            refused(batch[0], error.names)
            _store_failed(_failed(batch[0], error.names), store)
            return
    else:
        return
    middle = len(batch) // 2
    for half in (batch[:middle], batch[middle:]):
        store_split(half, store, refused)


def _failed(message: ProcessedMessage, names: str) -> ProcessedMessage:
    """As it is stored instead: whose it is and why it failed, and nothing that was made of it."""
    of, reason = message.parsed, f"storing failed: {names}"
    if isinstance(of, WireMessage):
        of = Invalid(
            reason,
            of.id,
            tenant=of.tenant,
            user=of.user,
            model=of.model,
            conversation_id=of.conversation_id,
            format=of.format,
            reading=of.reading,
        )
    return replace(message, parsed=of, outcome=Outcome("failed", reason=reason), mitigation=None)


def _store_failed(message: ProcessedMessage, store: Store) -> None:
    try:
        store([message])
    except RowRefusedError:
        try:
            store([replace(message, labelled=False)])
        except RowRefusedError as error:
            raise RowRefusedError(
                f"database: the failed row of the message at {message.at} was refused as well ({error.names}); change "
                "the constraint or trigger that refuses it, and start again: the message is read again then",
                error.names,
            ) from None
