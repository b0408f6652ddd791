"""`awry serve`: the web pages and the HTTP API."""

from __future__ import annotations

from monitor.cli import options as o
from monitor.cli.inputs import opened_by
from monitor.cli.output import say
from monitor.cli.tree import Commands

commands = Commands()


@commands.command()
def serve(listen: o.Listen = None, database_url: o.DatabaseUrl = None, state_dir: o.StateDir = None) -> None:
    """Serve the web pages, the HTTP API (/api/v1), /metrics, /healthz and /readyz. Ctrl-C ends it."""
    from alerts.links import Links
    from monitor.service.rollup_loop import rolling_up
    from monitor.service.run import DEFAULT_LISTEN, ready_of, until_signal
    from monitor.settings import load_settings
    from monitor.telemetry import metrics
    from monitor.telemetry.logs import configure
    from monitor.web import server

    settings = load_settings(database_url=database_url, state_dir=state_dir, listen=listen)
    configure()
    links = Links(settings.runbook_url, settings.dashboard_url)
    with (
        opened_by(settings) as engine,
        until_signal() as stopped,
        metrics.watching(engine),
        rolling_up(engine, say),
        server.serving(settings.listen or DEFAULT_LISTEN, engine, links, ready_of(engine)) as address,
    ):
        say(f"page on http://{address}, API on http://{address}/api/v1")
        while not stopped(3600):
            pass
