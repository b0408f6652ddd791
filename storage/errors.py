"""Errors of `storage`. Messages name the field and the fix, and hold no prompt text and no password."""

from awry.errors import AwryError


class StorageError(AwryError):
    """Base of all errors raised by `storage`."""


class DatabaseUnavailableError(StorageError):
    """The database cannot be reached or started."""


class SchemaError(StorageError):
    """The database's schema is not the one that this version of awry needs."""


class BusyError(StorageError):
    """Others hold a table for longer than this was worth waiting."""


class NotAllowedError(StorageError):
    """The database role may not do this."""


class RowRefusedError(StorageError):
    """The database takes other rows, and not one of these.

    `names` are the driver's class of the error, its SQLSTATE, and table, column and constraint: no value of a row.
    """

    def __init__(self, message: str, names: str) -> None:
        super().__init__(message)
        self.names = names
