"""A file of JSON lines for a SIEM's agent to follow: one notification a line.

Contract: a line is written whole and is on the disk before its notification counts as delivered. The file is reopened
each time, so that it may be rotated; a new one is readable for its owner and group alone. A line that was cut off by a
full disk is ended before the next one.
"""

from __future__ import annotations

import os
from pathlib import Path

from alerts.destinations import Format
from alerts.formats import render
from alerts.senders.base import DeliveryError, Notification


class FileSender:
    """Appends to one file."""

    def __init__(self, path: Path, form: Format) -> None:
        self._path = path
        self._form = form

    def send(self, notification: Notification) -> None:
        line = render(notification, self._form).encode() + b"\n"
        try:
            with open(self._path, "a+b", buffering=0, opener=_for_us_and_our_group) as file:
                if file.seek(0, os.SEEK_END) and not _ends_in_newline(file.fileno()):
                    line = b"\n" + line
                written = file.write(line)
                os.fsync(file.fileno())
        except OSError as error:
            raise DeliveryError(f"the file cannot be written ({type(error).__name__})") from None
        if written != len(line):
            raise DeliveryError("the file took a part of the line: is the disk full?")


def _for_us_and_our_group(path: str, flags: int) -> int:
    """A new file is nobody else's to read; one that is there keeps its mode."""
    return os.open(path, flags, 0o640)


def _ends_in_newline(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, 1, size - 1) == b"\n"
