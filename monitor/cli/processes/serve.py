"""`awry serve`: the web pages and the HTTP API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from monitor.cli import options as o
from monitor.cli.inputs import actor_of, opened_by
from monitor.cli.output import say
from monitor.cli.tree import Commands

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from monitor.settings import Settings
    from monitor.web.auth.options import AccessOptions

commands = Commands()


@commands.command()
def serve(
    listen: o.Listen = None,
    page_open: o.PageOpen = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Serve the web pages, the HTTP API (/api/v1), /metrics, /healthz and /readyz. Ctrl-C ends it.

    On a terminal it prints a link that signs in once. Everybody else signs in with a token (`awry tokens create`) or by
    a single sign-on.
    """
    from alerts.links import Links
    from alerts.rules.references import about_rules
    from monitor.service.bootstrap import load_rules
    from monitor.service.rollup_loop import rolling_up
    from monitor.service.run import DEFAULT_LISTEN, ready_of, until_signal
    from monitor.settings import load_settings
    from monitor.telemetry import metrics
    from monitor.telemetry.logs import configure
    from monitor.web import server
    from monitor.web.auth.once import OnceLink

    settings = load_settings(database_url=database_url, state_dir=state_dir, listen=listen, page_open=page_open)
    configure()
    # Never into a log: whoever reads it could use it first.
    once = OnceLink(actor_of(None).who) if sys.stderr.isatty() else None
    rules = load_rules(settings)
    links = Links(settings.runbook_url, settings.dashboard_url, about_rules(rules.all))
    with (
        opened_by(settings) as engine,
        read_replica(settings) as replica,
        until_signal() as stopped,
        metrics.watching(engine, replica),
        rolling_up(engine, say),
        server.serving(
            settings.listen or DEFAULT_LISTEN,
            engine,
            links,
            ready_of(engine),
            access_options(settings),
            once,
            replica,
            rules.exception,
        ) as address,
    ):
        say(f"page on http://{address}, API on http://{address}/api/v1")
        if once is not None:
            say(f"sign in once, within 10 minutes: http://{address}/sign-in?once={once.secret}")
        while not stopped(3600):
            pass


@contextmanager
def read_replica(settings: Settings) -> Iterator[Engine | None]:
    """The replica that the settings name, of the schema that this version needs; None without one."""
    from storage.database import check_schema, connect

    if settings.read_database_url is None:
        yield None
        return
    engine = connect(settings.read_database_url.get_secret_value(), "read_database_url")
    try:
        check_schema(engine)
        yield engine
    finally:
        engine.dispose()


def access_options(settings: Settings) -> AccessOptions:
    """What the settings say of access, as the web server takes it."""
    from datetime import timedelta

    from monitor.web.auth.oidc import Grant, OidcOptions
    from monitor.web.auth.options import AccessOptions
    from monitor.web.ui.sign_in import CALLBACK

    oidc = None
    if settings.oidc_issuer is not None and settings.oidc_client_id is not None:
        secret = settings.oidc_client_secret
        oidc = OidcOptions(
            settings.oidc_issuer,
            settings.oidc_client_id,
            secret.get_secret_value() if secret is not None else None,
            f"{settings.public_url}{CALLBACK}",
            tuple(Grant(each.group, each.scope, each.tenant) for each in settings.oidc_grants),
            settings.oidc_scopes,
            settings.oidc_groups_claim,
            settings.oidc_name_claim,
        )
    return AccessOptions(
        settings.page_open,
        settings.public_url,
        settings.trusted_proxies,
        timedelta(hours=settings.session_hours),
        oidc,
    )
