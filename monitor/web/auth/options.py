"""Who may come in, and how: what the settings say, as the web server takes it.

Contract: plain values, checked by whoever reads the settings. `public_url` is how browsers reach these pages (scheme
and host, no path); https there makes cookies Secure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from monitor.web.auth.oidc import OidcOptions
from monitor.web.auth.sessions import LASTING

PageOpen = Literal["never", "loopback"]


@dataclass(frozen=True)
class AccessOptions:
    """`page_open`: who may read the pages without a token: nobody, or whoever is on this machine. `trusted_proxies`:
    addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed."""

    page_open: PageOpen = "never"
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    session_lasting: timedelta = LASTING
    oidc: OidcOptions | None = None

    @property
    def secure(self) -> bool:
        """Whether browsers come by https, whatever a request looks like here."""
        return (self.public_url or "").startswith("https://")


DEFAULT = AccessOptions()
