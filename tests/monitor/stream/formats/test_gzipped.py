"""Records that a sender packed with gzip are read, within a limit."""

from __future__ import annotations

import gzip
import time

from monitor.stream.parse import parse
from monitor.stream.wire import Invalid
from tests.monitor.stream.formats.test_otlp import SAID
from tests.support.stream.renderings_otlp import RENDERINGS


def test_gzip_within_a_record() -> None:
    for name in ("span, strings", "span, JSON", "litellm"):
        payload = RENDERINGS[name](SAID)
        assert parse(gzip.compress(payload)) == parse(payload)


def test_gzip_is_bounded() -> None:
    bomb = gzip.compress(b" " * (200 << 20))
    started = time.process_time()
    (found,) = parse(bomb)
    assert isinstance(found, Invalid)
    assert found.reason.startswith("payload: gzip of over")
    assert time.process_time() - started < 2
    (found,) = parse(gzip.compress(b'{"prompt": "hello"}')[:-9])
    assert isinstance(found, Invalid)
    assert found.reason == "payload: broken gzip"
