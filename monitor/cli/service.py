"""`awry run`, `awry send`, `awry serve`, `awry settings`, `awry demo`: the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.app import app, say

Flag = typer.Option


@app.command()
def run(
    source: Annotated[str | None, Flag(help="kafka:TOPIC[,TOPIC], a file of JSON lines, or -")] = None,
    start_from: Annotated[
        str | None, Flag("--from", help="where a group without offsets begins: earliest, latest or a time")
    ] = None,
    group: Annotated[str | None, Flag(help="consumer group")] = None,
    follow: Annotated[bool | None, Flag("--follow", help="keep reading as the file grows")] = None,
    model: Annotated[str | None, Flag(help="built-in name, folder or hub id")] = None,
    adapter: Annotated[str | None, Flag(help="shipped adapter or PEFT folder")] = None,
    scale: Annotated[float | None, Flag(help="strength of the adapter")] = None,
    probe: Annotated[list[str] | None, Flag(help="probe name or card; may be given again")] = None,
    mitigate: Annotated[str | None, Flag(help="off, flagged or all")] = None,
    also_plain: Annotated[bool | None, Flag("--also-plain", help="the unmitigated answer too")] = None,
    answers_out: Annotated[str | None, Flag(help="answers: a file, -, or kafka:TOPIC")] = None,
    verdicts_out: Annotated[str | None, Flag(help="verdicts: a file, -, or kafka:TOPIC")] = None,
    dead_letters_out: Annotated[str | None, Flag(help="dead letters: a file, -, kafka:TOPIC or none")] = None,
    privacy: Annotated[str | None, Flag(help="none, sha256 or full")] = None,
    rules: Annotated[Path | None, Flag(help="TOML file of alert rules")] = None,
    listen: Annotated[str | None, Flag(help="HOST:PORT of /metrics, /healthz and /readyz")] = None,
    database_url: Annotated[str | None, Flag(help="postgresql://...; default: embedded")] = None,
    state_dir: Annotated[Path | None, Flag(help="models, the embedded database, the embedded Kafka")] = None,
    logs: Annotated[str | None, Flag(help="auto, terminal or json")] = None,
) -> None:
    """Score a stream of messages, store every score, open alerts. Ctrl-C drains and exits."""
    from monitor.service import run as service
    from monitor.settings import load_settings
    from monitor.telemetry.logs import configure

    settings = load_settings(
        source=source,
        start_from=start_from,
        kafka_group=group,
        follow=follow,
        model=model,
        adapter=adapter,
        scale=scale,
        probes=tuple(probe) if probe else None,
        mitigate=mitigate,
        also_plain=also_plain,
        answers_out=answers_out,
        verdicts_out=verdicts_out,
        dead_letters_out=dead_letters_out,
        privacy=privacy,
        rules_file=rules,
        listen=listen,
        database_url=database_url,
        state_dir=state_dir,
        logs=logs,
    )
    configure()
    service.run(settings, say)


@app.command()
def send(
    once: Annotated[bool, Flag("--once", help="deliver what is due now and stop")] = False,
    rules: Annotated[Path | None, Flag(help="TOML file of alert rules")] = None,
    listen: Annotated[str | None, Flag(help="HOST:PORT of /metrics, /healthz and /readyz")] = None,
    database_url: Annotated[str | None, Flag(help="postgresql://...; default: embedded")] = None,
    state_dir: Annotated[Path | None, Flag(help="models and the embedded database")] = None,
) -> None:
    """Evaluate rate and monitor rules, and deliver alerts to their destinations, with retries."""
    from alerts.delivery import loop
    from alerts.delivery.channel import make_couriers
    from alerts.delivery.deliver import Delivered, deliver_due
    from alerts.links import Links
    from monitor.service import bootstrap
    from monitor.service.rollup_loop import rolling_up
    from monitor.service.rule_loop import Looks, evaluating
    from monitor.service.run import listening, until_signal
    from monitor.settings import load_settings
    from monitor.telemetry import metrics

    settings = load_settings(database_url=database_url, state_dir=state_dir, listen=listen, rules_file=rules)
    found = bootstrap.load_rules(settings)
    engine = bootstrap.open_database(settings)
    couriers = make_couriers(settings.destinations, Links(settings.runbook_url, settings.dashboard_url))
    metrics.start_at_zero(destination=couriers)

    def tell(done: Delivered) -> None:
        for result, number in done.by_destination.items():
            metrics.DELIVERIES.labels(*result).inc(number)
        if done.failed or done.dead or done.gone:
            names = ", ".join(sorted({name for name, result in done.by_destination if result != "sent"}))
            say(
                f"{names}: {done.sent} sent, {done.failed} to be tried again, {done.dead} given up"
                + (f", {done.gone} gone: it is sent nothing more until awry outbox enable" if done.gone else "")
            )

    with until_signal() as stopped, listening(settings.listen, engine, say):
        if once:
            Looks(engine, found, tuple(couriers), say)()
            tell(deliver_due(engine, couriers))
        else:
            with (
                evaluating(engine, found, tuple(couriers), settings.rules_every_seconds, say),
                rolling_up(engine, say),
            ):
                loop.run(engine, couriers, stopped, settings.send_every_seconds, tell, say)
    engine.dispose()


@app.command()
def serve(
    listen: Annotated[str | None, Flag(help="HOST:PORT")] = None,
    database_url: Annotated[str | None, Flag(help="postgresql://...; default: embedded")] = None,
    state_dir: Annotated[Path | None, Flag(help="models and the embedded database")] = None,
) -> None:
    """Serve the page, the HTTP API (/api/v1), /metrics, /healthz and /readyz. Ctrl-C ends it."""
    from alerts.links import Links
    from monitor.service import bootstrap
    from monitor.service.rollup_loop import rolling_up
    from monitor.service.run import DEFAULT_LISTEN, ready_of, until_signal
    from monitor.settings import load_settings
    from monitor.telemetry import metrics
    from monitor.telemetry.logs import configure
    from monitor.web import server

    settings = load_settings(database_url=database_url, state_dir=state_dir, listen=listen)
    configure()
    engine = bootstrap.open_database(settings)
    links = Links(settings.runbook_url, settings.dashboard_url)
    with (
        until_signal() as stopped,
        metrics.watching(engine),
        rolling_up(engine, say),
        server.serving(settings.listen or DEFAULT_LISTEN, engine, links, ready_of(engine)) as address,
    ):
        say(f"page on http://{address}, API on http://{address}/api/v1")
        while not stopped(3600):
            pass
    engine.dispose()


@app.command()
def settings() -> None:
    """Print every setting as a Markdown table (the README's is generated by this)."""
    from monitor.settings import reference

    typer.echo("| setting | environment | default | what it is |\n|---|---|---|---|")
    for name, variable, default, description in reference():
        typer.echo(f"| `{name}` | `{variable}` | {default} | {description} |")


@app.command()
def demo(
    out: Annotated[Path, Flag(help="folder for the picture and the answers")] = Path("out"),
    state_dir: Annotated[Path | None, Flag(help="models, caches and the embedded database")] = None,
    fresh: Annotated[bool, Flag("--fresh", help="generate the answers anew, not from the cache")] = False,
) -> None:
    """Watch a chat model that went wrong in fine-tuning being caught and corrected."""
    from monitor.demo import run_demo
    from monitor.settings import load_settings

    run_demo(load_settings(state_dir=state_dir), out, fresh)
