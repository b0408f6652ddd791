"""Service links: the variables that Kubernetes puts into every container for each Service of its namespace.

A Service called `awry-serve` becomes AWRY_SERVE_SERVICE_HOST, AWRY_SERVE_PORT=tcp://... and more of that kind, which
look like settings. Contract: a variable is a service link if both its name and its value have the form that Kubernetes
gives them; a misspelt setting has not.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", value) is not None and 0 < int(value) < 65_536


def _is_address(value: str) -> bool:
    """PROTOCOL://IP:PORT; Kubernetes writes IPv6 addresses in brackets."""
    found = re.fullmatch(r"(?:tcp|udp|sctp)://(?:\[(.+)\]|([^\[\]]+)):([0-9]+)", value)
    return found is not None and _is_ip(found[1] or found[2]) and _is_port(found[3])


# What follows the Service's own name, and what its value is.
_FORMS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    (r"_SERVICE_HOST", _is_ip),
    (r"_SERVICE_PORT(?:_[A-Z0-9_]+)?", _is_port),
    (r"_PORT(?:_[0-9]+_(?:TCP|UDP|SCTP))?", _is_address),
    (r"_PORT_[0-9]+_(?:TCP|UDP|SCTP)_ADDR", _is_ip),
    (r"_PORT_[0-9]+_(?:TCP|UDP|SCTP)_PORT", _is_port),
    (r"_PORT_[0-9]+_(?:TCP|UDP|SCTP)_PROTO", {"tcp", "udp", "sctp"}.__contains__),
)


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes set this variable because there is a Service of that name."""
    return any(re.fullmatch(r"[A-Z0-9_]+" + form, name) and holds(value) for form, holds in _FORMS)
