"""What keeps a judge within bounds: the circuit that opens when it is down, the cap on what it costs a day, the cache.

Contract: all three are safe to use from several threads, and take their time from `clock` (seconds, monotonic).
`Circuit` opens after so many failures in a row of the judge itself and lets one question through after a pause that
doubles up to MAX_PAUSE. `DailyCap` counts questions and tokens in the last 24 hours, by ten minutes; what other workers
asked is told to it. `Cache` holds the newest verdicts by the hash of what was asked.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from monitor.judge.answer import Verdict

FAILURES_TO_OPEN = 5
FIRST_PAUSE = 15.0
MAX_PAUSE = 600.0
_SLOT = 600.0
_DAY = 86_400.0

Clock = Callable[[], float]


class Circuit:
    """Closed while the judge answers; open while it is down."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = 0.0
        self._until = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        return self._pause > 0

    def wait(self) -> float:
        """Seconds until a question may be asked: 0 is now, and the caller then says how it went. While the circuit is
        open one caller at a time gets 0."""
        with self._lock:
            if not self._pause:
                return 0.0
            left = self._until - self._clock()
            if left <= 0 and not self._trying:
                self._trying = True
                return 0.0
            return max(left, 0.05)

    def worked(self) -> bool:
        """The judge answered, whatever it said. True where the circuit was open."""
        with self._lock:
            was_open = self._pause > 0
            self._failures, self._pause, self._trying = 0, 0.0, False
            return was_open

    def failed(self, retry_after: float | None = None) -> bool:
        """The judge did not answer. True where this opened the circuit."""
        with self._lock:
            self._failures += 1
            was_open = self._pause > 0
            if was_open and not self._trying:
                return False  # it was asked before the circuit opened
            if not was_open and self._failures < FAILURES_TO_OPEN:
                return False
            self._trying = False
            self._pause = min(MAX_PAUSE, self._pause * 2) if was_open else FIRST_PAUSE
            self._until = self._clock() + min(MAX_PAUSE, max(self._pause, retry_after or 0.0))
            return not was_open

    def gave_up(self) -> None:
        """A question that was let through was not asked after all."""
        with self._lock:
            self._trying = False


class DailyCap:
    """At most so many questions and tokens in any 24 hours."""

    def __init__(self, questions: int, tokens: int, clock: Clock = time.monotonic) -> None:
        self._questions, self._tokens = questions, tokens
        self._clock = clock
        self._lock = threading.Lock()
        # (begin of the slot, questions, tokens).
        self._slots: deque[list[float]] = deque()
        self._others = 0

    def set_all(self, questions: int) -> None:
        """So many questions were asked in the last 24 hours by all workers, this one's earlier runs among them."""
        with self._lock:
            self._others = max(0, questions - int(self._sums()[0]))

    def left(self) -> int:
        """Questions that may still be asked; 0 where the tokens are spent."""
        with self._lock:
            questions, tokens = self._sums()
            return max(0, self._questions - self._others - int(questions)) if tokens < self._tokens else 0

    def take(self) -> bool:
        """Take one question; False where none is left."""
        with self._lock:
            questions, tokens = self._sums()
            if tokens >= self._tokens or self._others + questions >= self._questions:
                return False
            self._slot()[1] += 1
            return True

    def spend(self, tokens: int) -> None:
        """A question took so many tokens."""
        with self._lock:
            self._slot()[2] += tokens

    def _slot(self) -> list[float]:
        now = self._clock()
        if not self._slots or now - self._slots[-1][0] >= _SLOT:
            self._slots.append([now, 0, 0])
        return self._slots[-1]

    def _sums(self) -> tuple[float, float]:
        while self._slots and self._clock() - self._slots[0][0] >= _DAY + _SLOT:
            self._slots.popleft()
        return sum(slot[1] for slot in self._slots), sum(slot[2] for slot in self._slots)


class Cache:
    """The newest verdicts; keys are hashes, no text is kept."""

    def __init__(self, judge: str, size: int = 4096) -> None:
        self._judge = judge
        self._size = size
        self._lock = threading.Lock()
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()

    def key(self, question: str, text: str) -> bytes:
        """Of a question to this judge about a text."""
        parts = (self._judge, question, text)
        return hashlib.sha256(b"".join(_part(part.encode("utf-8", "replace")) for part in parts)).digest()

    def get(self, key: bytes) -> Verdict | None:
        with self._lock:
            found = self._verdicts.get(key)
            if found is not None:
                self._verdicts.move_to_end(key)
            return found

    def put(self, key: bytes, verdict: Verdict) -> None:
        with self._lock:
            self._verdicts[key] = verdict
            self._verdicts.move_to_end(key)
            while len(self._verdicts) > self._size:
                self._verdicts.popitem(last=False)


def _part(encoded: bytes) -> bytes:
    return len(encoded).to_bytes(8, "big") + encoded
