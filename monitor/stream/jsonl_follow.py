"""Files that are followed as they grow, through rotation; what matches later is picked up.

Contract:

- Renamed and made again, deleted and made again, a link that leads elsewhere: the old file is read to its end, then the
  new one from its beginning. The old one stays open while it matches, else until nothing was added for `GRACE_SECONDS`:
  a writer may hold it. Files that came and went between two looks are found beside it by their first lines.
- Cut or written anew in place (copytruncate): told by the size, the file's beginning and what stands before the place
  that was read to. What was not read of the old content is read from a copy beside the file where there is one; if not,
  it is lost: `lost_bytes` has what is known of it. Then the file is read from its beginning.
- A file that cannot be unpacked stays aside: `trouble` tells it, the others go on.

Each switch is a line in the logs. What it does not know: a generation that came and went between two looks and begins
with the same line as one that is known is taken for a copy of that.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from monitor.errors import SourceError
from monitor.stream import jsonl_files as files
from monitor.stream.jsonl_bytes import ByteReader, CorruptError, RewrittenError
from monitor.stream.jsonl_files import Found, Key, Named
from monitor.stream.jsonl_log import OpenLog
from monitor.stream.record import Record
from monitor.telemetry import logs, metrics

LOOK_SECONDS = 0.2
GRACE_SECONDS = 60.0


class Followed:
    """The files that `paths` name; `name` is their source name where it is given."""

    done = False

    def __init__(self, names: Sequence[Named], name: str | None, max_bytes: int) -> None:
        self._names = names
        self._name = name
        self._max_bytes = max_bytes
        self._logs: list[OpenLog] = []
        self._turn = 0
        self._read_in_round = False
        self._unreadable: set[str] = set()
        self._beside: dict[Key, tuple[int, int, str | None]] = {}  # modified, size, identity
        self._identities: set[str] = set()  # of logs that are closed
        self._watched: dict[str, Key] = {}  # which file a path led to when it was last there
        self.lost_bytes = 0
        for found in files.find(names):
            self._open(found)
        self._watched = {log.path: log.reader.key for log in self._logs}
        self._remember_siblings()
        self._next_look = time.monotonic() + LOOK_SECONDS
        if not self._logs:
            logs.logger().warning("source: no file is there yet", files=[n.path for n in names])

    def step(self, ready: list[Record]) -> bool:
        """Read one piece; False when nothing is there now."""
        if time.monotonic() >= self._next_look:
            self._look(ready)
            self._next_look = time.monotonic() + LOOK_SECONDS
        while self._turn < len(self._logs):
            log = self._logs[self._turn]
            if log.broken is None and self._read(log, ready):
                self._read_in_round = True
                return True
            log.visit_until = None
            self._turn += 1
        self._turn = 0
        read, self._read_in_round = self._read_in_round, False
        return read

    @property
    def lag(self) -> int:
        return sum(log.lag for log in list(self._logs))

    @property
    def trouble(self) -> str | None:
        broken = [f"{log.path} ({log.broken})" for log in list(self._logs) if log.broken is not None]
        return f"source: cannot read {', '.join(broken)}" if broken else None

    def close(self) -> None:
        for log in self._logs:
            log.reader.close()

    def _read(self, log: OpenLog, ready: list[Record]) -> bool:
        """One piece of a file; no more in one visit than there was when it began, so that all have their turn."""
        if log.visit_until is None:
            log.visit_until = log.reader.raw + log.reader.unread
        elif log.reader.raw >= log.visit_until and log.orphan_since is None and log.reader.packing == "plain":
            return False
        try:
            read = log.read(ready)
        except RewrittenError:
            self._rewritten(log)
            return True
        if log.broken is not None:
            logs.logger().error("source: a file cannot be read on", path=log.path, reason=log.broken)
        elif read and log.orphan_since is not None:
            log.orphan_since = time.monotonic()
        return read

    def _look(self, ready: list[Record]) -> None:
        """Find what is new, and what no path leads to any more."""
        found = files.find(self._names)
        there = {f.key: f for f in found}
        known = {log.reader.key for log in self._logs}
        paths = {f.path for f in found}
        now = time.monotonic()
        for log in self._logs:
            here = there.get(log.reader.key)
            if here is not None:
                log.path, log.orphan_since = here.path, None
            elif log.orphan_since is None:
                log.orphan_since = now
                if log.path not in paths:
                    logs.logger().warning("source: a file is gone; what is left of it is read", path=log.path)
        new = [f for f in found if f.key not in known]
        replaced = {f.path: f for f in new if self._watched.get(f.path, f.key) != f.key}
        for between in self._between(replaced, {*known, *there}):
            if self._open(between) is not None:
                logs.logger().warning("source: a file came and went between two looks", path=between.path)
        for each in new:
            if self._open(each) is not None:
                self._watched[each.path] = each.key
                what = "source: a file was replaced" if each.path in replaced else "source: another file"
                logs.logger().info(what, path=each.path)
        self._watched |= {f.path: f.key for f in found if f.key in known}
        if new:
            self._forget_paths(paths)
            self._remember_siblings()
            self._turn = 0
        self._close_old(now, ready)

    def _open(self, found: Found) -> OpenLog | None:
        try:
            file = files.open_file(found.path)
        except SourceError as error:
            cause = error.__cause__
            missing = isinstance(cause, OSError) and cause.errno == errno.ENOENT
            if not self._watched or (isinstance(cause, OSError) and cause.errno == errno.EMFILE):
                raise
            if not missing and found.path not in self._unreadable:
                self._unreadable.add(found.path)
                logs.logger().error("source: a file cannot be opened", path=found.path, reason=str(error))
            return None
        self._unreadable.discard(found.path)
        log = OpenLog(found.path, self._name or found.name, file, self._max_bytes)
        if any(log.reader.key == other.reader.key for other in self._logs):
            file.close()  # replaced between the look and the opening; the next look knows
            return None
        self._logs.append(log)
        return log

    def _close_old(self, now: float, ready: list[Record]) -> None:
        """Close files that no path leads to and nobody adds to; tell of compressed ones whose end does not come."""
        for log in list(self._logs):
            complete = log.broken is not None or log.reader.unread == 0
            if log.orphan_since is not None and complete and now - log.orphan_since >= GRACE_SECONDS:
                log.end(ready)
                self._forget(log)
                log.reader.close()
                logs.logger().info("source: an old file was read to its end", path=log.path, records=log.records)
            elif not (log.reader.whole or log.waits_for_rest or log.broken) and now - log.read_at >= GRACE_SECONDS:
                log.waits_for_rest = True
                logs.logger().warning("source: a compressed file is cut off; more is waited for", path=log.path)

    def _forget(self, log: OpenLog) -> None:
        self._logs.remove(log)
        self._turn = 0
        if log.identity is not None:
            self._identities.add(log.identity)

    def _forget_paths(self, there: set[str]) -> None:
        kept = there | {named.path for named in self._names} | {log.path for log in self._logs}
        self._watched = {path: key for path, key in self._watched.items() if path in kept}

    def _remember_siblings(self) -> None:
        """The identities of what is beside the files, to know a file that comes later from one that was renamed."""
        before, self._beside = self._beside, {}
        for _, found in files.siblings(self._watched):
            state = before.get(found.key)
            if state is None or state[:2] != (found.modified, found.size):
                state = (found.modified, found.size, files.identity_in(found.path))
            self._beside[found.key] = state

    def _between(self, replaced: Mapping[str, Found], known: set[Key]) -> list[Found]:
        """Generations of these files that no look has seen, oldest first."""
        result = []
        for path, found in sorted(files.siblings(replaced), key=lambda pair: (pair[1].modified, pair[1].path)):
            identity = files.identity_in(found.path) if found.key not in known else None
            state = self._beside.get(found.key)
            if identity is None or (state is not None and state[2] == identity) or self._is_copy(found, identity):
                continue
            result.append(replace(found, name=replaced[path].name))
        return result

    def _is_copy(self, found: Found, identity: str) -> bool:
        """Whether the file holds a log that is known."""
        same = [log for log in self._logs if _identity(log) == identity]
        if same:
            return any(self._copies(log, found) is not None for log in same)
        return identity in self._identities or any(identity == state[2] for state in self._beside.values())

    def _copies(self, log: OpenLog, found: Found) -> bool | None:
        """How a file holds what was read of a log: True packed, False plain, None not at all."""
        try:
            reader = ByteReader(files.open_file(found.path))
        except SourceError:
            return None
        try:
            if log.reader.is_in(reader):
                return False
            if (identity := _identity(log)) is None or files.identity_in(found.path) != identity:
                return None
            reader.read()
            return True if reader.packing != log.reader.packing else None
        except (OSError, CorruptError, RewrittenError):
            return None
        finally:
            reader.close()

    def _rewritten(self, log: OpenLog) -> None:
        """Read the rest of the old content where there is a copy, then the file from its beginning."""
        path, place = log.path, self._logs.index(log)
        lost = log.reader.unread_when_last_seen + log.unfinished
        was = log.reader
        copy = self._copy_of(log) if was.raw else None
        if copy is None or copy[0].key in {other.reader.key for other in self._logs}:
            self._forget(log)  # a copy that is read already has the rest
        else:
            log.go_on_in(ByteReader(files.open_file(copy[0].path)), packed=copy[1])
            log.path, log.orphan_since = copy[0].path, time.monotonic()
            place += 1
        lost = lost if copy is None else 0
        self.lost_bytes += lost
        metrics.LOST_BYTES.inc(lost)
        logs.logger().warning(
            "source: a file was cut or written anew; it is read from its beginning",
            path=path,
            rest_read_from=copy[0].path if copy is not None else None,
            lost_bytes=lost,
        )
        self._logs.insert(place, OpenLog(path, log.name, was.release(), self._max_bytes))
        self._remember_siblings()
        self._turn = 0

    def _copy_of(self, log: OpenLog) -> tuple[Found, bool] | None:
        """A file beside that holds what was read of this log, and whether it is packed; the newest."""
        for _, found in sorted(files.siblings([log.path]), key=lambda pair: -pair[1].modified):
            packed = self._copies(log, found)
            if packed is not None:
                return found, packed
        return None


def _identity(log: OpenLog) -> str | None:
    """Also of a log of which nothing was read yet, whatever its name is now."""
    return log.identity or files.identity_in(f"/proc/self/fd/{log.reader.fileno()}")
