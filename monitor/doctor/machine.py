"""This machine: the state folder and its disk, the ports that awry listens on, the names that it sends to."""

from __future__ import annotations

import os
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from alerts.destinations import PAGERDUTY, SYSLOG_SCHEMES, Destination
from monitor.config.named import LISTENS
from monitor.doctor.finding import Finding, fault, ok, warning
from monitor.errors import SettingsError
from monitor.settings import Settings
from monitor.stream.wiring import unwritable

# The built-in model takes 0.6 GB, the embedded database what its rows take.
_LOW_BYTES, _TOO_LOW_BYTES = 5_000_000_000, 1_000_000_000
_SECONDS = 3.0


def disk(settings: Settings) -> Iterator[Finding]:
    """The state folder: there or to be made, writable, on a disk with space."""
    folder = settings.state_dir
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield fault("state folder", f"this user may not write to {there}", "make it writable, or set AWRY_STATE_DIR")
    usage = shutil.disk_usage(there)
    found = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.1f} GB are free below {folder}"
    do = "free space there, or set AWRY_STATE_DIR to a folder on another disk"
    if usage.free < _TOO_LOW_BYTES:
        yield fault("disk", found, do)
    elif usage.free < _LOW_BYTES:
        yield warning("disk", found, do)
    else:
        yield ok("disk", found)


def ports(settings: Settings) -> Iterator[Finding]:
    """Each address to listen on is free, or awry listens there already."""
    from monitor.service.run import DEFAULT_LISTEN

    for setting in LISTENS:
        address = getattr(settings, setting) or (DEFAULT_LISTEN if setting == "listen" else None)
        if address is not None:
            yield _port(setting, address)


def _port(setting: str, address: str) -> Finding:
    from monitor.telemetry.http_server import bind, format_address, parse_address

    part = f"port ({setting})"
    try:
        host, port = parse_address(address)
        bind(host, port).close()
    except SettingsError as error:
        what = str(error).removeprefix("listen: ").partition("; ")[0]
        if "taken by another" in what and _is_awry(format_address(host, port)):
            return ok(part, f"{address}: awry listens there")
        return fault(part, what, f"choose another address with AWRY_{setting.upper()}, or stop what uses it")
    return ok(part, f"{address} is free")


def _is_awry(address: str) -> bool:
    """Whether /metrics at this address of this machine has awry's metrics."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{_reachable(address)}/metrics", timeout=_SECONDS) as response:
            return b"awry_build_info" in response.read(1 << 20)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def _reachable(address: str) -> str:
    """0.0.0.0 and [::] are all addresses of this machine, loopback among them."""
    return address.replace("0.0.0.0", "127.0.0.1", 1).replace("[::]:", "[::1]:", 1)  # noqa: S104 - not to listen on


def destinations(settings: Settings) -> Iterator[Finding]:
    """Names of destinations and of the judge resolve; files are in folders that are there."""
    for each in settings.destinations:
        yield _destination(each)
    if settings.judge_url is not None:
        yield _resolved("judge", "judge_url", settings.judge_url, 443)


def _destination(each: Destination) -> Finding:
    part = f"destination {each.name}"
    if each.path is not None:
        why = unwritable(str(each.path))
        if why is not None:
            return fault(part, why, "make its folder, writable for this user, or choose another file")
        return ok(part, f"writes to {each.path}")
    if each.kind == "console":
        return ok(part, "prints on standard output")
    if each.kind == "apprise":  # what its URLs hold differs by service
        return ok(part, "is Apprise's; awry outbox test tries it")
    proxy, url = each.proxy.get_secret_value(), each.url.get_secret_value() or PAGERDUTY
    default = SYSLOG_SCHEMES.get(urlsplit(url).scheme, 443)
    return _resolved(part, "its proxy" if proxy else "its url", proxy or url, default)


def _resolved(part: str, named: str, url: str, default_port: int) -> Finding:
    """Whether the host of a URL has an address. Neither path nor password of it is shown."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or default_port
    try:
        addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    except (OSError, UnicodeError):
        do = f"correct the host of {named}, or the name server of this machine"
        return fault(part, f"{host} ({named}) has no address", do)
    return ok(part, f"{host} is {', '.join(addresses[:3])}; awry outbox test tries it")
