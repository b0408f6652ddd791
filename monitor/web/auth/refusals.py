"""What is refused leaves a trace: a log line and a count, without any secret.

Contract: `refused` counts under `reason` and logs a warning. Of a secret it says the first digits of its SHA-256, by
which an operator can tell whether one wrong secret came a thousand times or a thousand did once. A log is not to be
filled from outside: what an address over its limit sends is counted, and logged no more (`blocked`).
"""

from __future__ import annotations

import logging
from typing import Literal

from monitor.telemetry.metrics import ACCESS_REFUSED

Reason = Literal["wrong", "blocked", "scope", "tenant", "sign-on"]

_logger = logging.getLogger("awry.access")


def refused(reason: Reason, address: str, detail: str, digest: bytes | None = None) -> None:
    """`detail` is ours: it quotes nothing that a client sent."""
    ACCESS_REFUSED.labels(reason).inc()
    if reason != "blocked":
        told = f" (sha256 {digest.hex()[:8]})" if digest is not None else ""
        _logger.warning("refused %s: %s%s", address, detail, told)
