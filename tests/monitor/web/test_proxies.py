"""The proxies of docs/access.md, as they are written there, before `awry serve`: nginx and Caddy, with TLS."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx2
import pytest
import trustme
from sqlalchemy import Engine

from alerts.links import Links
from monitor.web.auth.options import AccessOptions
from monitor.web.server import serving
from tests.conftest import needs_program
from tests.support import ROOT
from tests.support.alerts.alert_scenes import audit_rows
from tests.support.web.api import token
from tests.support.web.pages import OPEN

pytestmark = pytest.mark.slow

HOST = "awry.example.org"
ORIGIN = {"origin": f"https://{HOST}"}
BEHIND = AccessOptions(public_url=f"https://{HOST}", trusted_proxies=("127.0.0.1",))
DOCS = (ROOT / "docs" / "access.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    return str(found)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="aw-proxy-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def authority(folder: Path) -> trustme.CA:
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    certificate.private_key_pem.write_to_path(folder / "awry.key")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "awry.crt", append=True)
    return authority


@contextmanager
def running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env={"HOME": str(folder)})
    try:
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "said").read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def nginx(server: str, port: int, folder: Path) -> AbstractContextManager[None]:
    program = needs_program("nginx", "apt-get install nginx-light")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{server}}}\n"
    )
    return running([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], port, folder)


def nginx_of_docs(address: str, port: int, folder: Path) -> AbstractContextManager[None]:
    written = block("nginx").replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    written = written.replace("/etc/ssl/", f"{folder}/").replace("127.0.0.1:9464", address)
    return nginx(written, port, folder)


def caddy_of_docs(address: str, port: int, folder: Path) -> AbstractContextManager[None]:
    program = needs_program("caddy", "apt-get install caddy")
    site = block("caddy").replace(f"{HOST} {{", f"{HOST}:{port} {{\n    bind 127.0.0.1\n    tls awry.crt awry.key")
    written = "{\n    admin off\n    auto_https disable_redirects\n}\n" + site.replace("127.0.0.1:9464", address)
    (folder / "Caddyfile").write_text(written)
    return running([program, "run", "--adapter", "caddyfile", "--config", "Caddyfile"], port, folder)


@pytest.mark.parametrize("proxy", [nginx_of_docs, caddy_of_docs])
def test_behind_the_proxy_of_the_docs(
    engine: Engine,
    folder: Path,
    authority: trustme.CA,
    proxy: Callable[[str, int, Path], AbstractContextManager[None]],
) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    port, secret = free_port(), token(engine)
    with (
        serving("127.0.0.1:0", engine, Links(), lambda: None, BEHIND) as address,
        proxy(address, port, folder),
        httpx2.Client(verify=trusting, headers={"host": HOST}) as browser,
    ):

        def ask(method: str, path: str, **more: object) -> httpx2.Response:
            names = {"sni_hostname": HOST}
            return browser.request(method, f"https://127.0.0.1:{port}{path}", extensions=names, **more)  # type: ignore[arg-type]

        assert ask("GET", "/").headers["location"] == "/sign-in?next=/"
        spoofed = ORIGIN | {"x-forwarded-for": "192.0.2.99", "x-forwarded-proto": "http"}
        signed_in = ask("POST", "/sign-in", data={"token": secret, "next": "/alerts"}, headers=spoofed)
        assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/alerts")
        kept = signed_in.headers["set-cookie"]
        assert kept.startswith("__Host-awry_session=")
        assert "Secure" in kept
        cookie = {"cookie": kept.partition(";")[0]}
        assert ask("GET", "/alerts", headers=cookie).status_code == 200
        assert ask("POST", "/sign-out", headers=cookie | {"origin": "https://evil.example"}).status_code == 403
        assert ask("GET", "/api/v1/alerts", headers={"authorization": f"Bearer {secret}"}).status_code == 200
    (row,) = (each for each in audit_rows(engine) if each.action == "sign in")
    # The client's own address; what a client says of itself is not believed.
    assert row.origin == "127.0.0.1"


def test_with_nothing_but_proxy_pass_nobody_reads(engine: Engine, folder: Path) -> None:
    """Even where the pages are open to this machine, which docs/access.md tells not to do there."""
    port = free_port()
    with serving("127.0.0.1:0", engine, Links(), lambda: None, OPEN) as address:
        assert httpx2.get(f"http://{address}/").status_code == 200
        server = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{address}; }} }}"
        with nginx(server, port, folder):
            assert httpx2.get(f"http://127.0.0.1:{port}/").status_code == 303


def test_who_is_no_trusted_proxy_is_not_believed(engine: Engine) -> None:
    elsewhere = AccessOptions(trusted_proxies=("192.0.2.0/24",))
    with serving("127.0.0.1:0", engine, Links(), lambda: None, elsewhere) as address:
        headers = {"origin": f"http://{address}", "x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https"}
        signed_in = httpx2.post(f"http://{address}/sign-in", data={"token": token(engine)}, headers=headers)
        assert signed_in.headers["set-cookie"].startswith("awry_session=")
    (row,) = (each for each in audit_rows(engine) if each.action == "sign in")
    assert row.origin == "127.0.0.1"
