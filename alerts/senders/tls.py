"""TLS with a check of the receiver's certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

from alerts.senders.base import DeliveryError


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """CA certificates of the system, or of a file. An unreadable file is a failed attempt: it may be there later."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise DeliveryError(f"ca_file cannot be read ({type(error).__name__})") from None
