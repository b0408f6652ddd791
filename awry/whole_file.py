"""Writes a file at once or not at all. Imports nothing of awry, so that every package may import it."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Of a file: its owner's alone, or everybody's whom the umask lets.
PRIVATE, SHARED = 0o600, 0o666


@contextmanager
def whole_file(path: Path, *, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """A file that appears under `path`, in place of what was there, when the block ends without an error, and is on the
    disk then; else nothing is changed.

    It is written beside it, in the same folder, which must be there, and has `mode`, less the umask, from the start.
    Raises OSError where it cannot be written, and where something is there that is no file: it would be replaced, and
    root may replace /dev/null.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is there and is no regular file", str(path))
    scratch = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
