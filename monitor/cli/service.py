"""`awry run`, `awry send`, `awry settings`, `awry alerts`, `awry demo`: the service."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from monitor.cli import app, say

Flag = typer.Option


@app.command()
def run(
    source: Annotated[str | None, Flag(help="JSON lines: a file, or - for standard input")] = None,
    follow: Annotated[bool | None, Flag("--follow", help="keep reading as the file grows")] = None,
    model: Annotated[str | None, Flag(help="built-in name, folder or hub id")] = None,
    adapter: Annotated[str | None, Flag(help="shipped adapter or PEFT folder")] = None,
    scale: Annotated[float | None, Flag(help="strength of the adapter")] = None,
    probe: Annotated[list[str] | None, Flag(help="probe name or card; may be given again")] = None,
    mitigate: Annotated[str | None, Flag(help="off, flagged or all")] = None,
    also_plain: Annotated[bool | None, Flag("--also-plain", help="the unmitigated answer too")] = None,
    answers_out: Annotated[Path | None, Flag(help="JSON lines of answers; - for standard output")] = None,
    privacy: Annotated[str | None, Flag(help="none, sha256 or full")] = None,
    database_url: Annotated[str | None, Flag(help="postgresql://...; default: embedded")] = None,
    state_dir: Annotated[Path | None, Flag(help="models and the embedded database")] = None,
    logs: Annotated[str | None, Flag(help="auto, terminal or json")] = None,
) -> None:
    """Score a stream of messages, store every score, open alerts. Ctrl-C drains and exits."""
    from monitor import assemble
    from monitor import logs as log
    from monitor.progress import facts, is_terminal, reporting
    from monitor.settings import load_settings

    settings = load_settings(
        source=source, follow=follow, model=model, adapter=adapter, scale=scale,
        probes=tuple(probe) if probe else None, mitigate=mitigate, also_plain=also_plain,
        answers_out=answers_out, privacy=privacy, database_url=database_url, state_dir=state_dir, logs=logs,
    )  # fmt: skip
    log.configure()
    tell = say if is_terminal(settings.logs) else log.logger().info
    engine = assemble.open_database(settings, tell)
    chat = assemble.load_model(settings, tell)
    probes = assemble.load_probes(settings, chat, tell)
    reporter: Any = None

    def on_batch_for(lag_unit: str) -> Any:
        nonlocal reporter
        reporter = reporting(settings, lag_unit)
        return reporter.__enter__()

    try:
        with assemble.building_worker(settings, engine, chat, probes, on_batch_for) as worker:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: worker.stop())
            tally = worker.run()
    finally:
        if reporter is not None:
            reporter.__exit__(None, None, None)
        engine.dispose()
    if is_terminal(settings.logs):
        counts = ", ".join(f"{n} {status}" for status, n in sorted(tally.by_status.items())) or "nothing new"
        say(f"{tally.messages} messages: {counts}, {tally.known} already known")
        say(f"{tally.flagged} flagged, {tally.alerts} alerts opened")
    else:
        log.logger().info("finished", **facts(tally))


@app.command()
def send(
    once: Annotated[bool, Flag("--once", help="deliver what is due now and stop")] = False,
    database_url: Annotated[str | None, Flag(help="postgresql://...; default: embedded")] = None,
    state_dir: Annotated[Path | None, Flag(help="models and the embedded database")] = None,
) -> None:
    """Deliver alerts to their destinations, with retries."""
    from alerts.outbox import deliver_due
    from alerts.senders import make_senders
    from monitor import assemble
    from monitor.settings import load_settings

    settings = load_settings(database_url=database_url, state_dir=state_dir)
    engine = assemble.open_database(settings)
    senders = make_senders(settings.destinations)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        while not stopping:
            done = deliver_due(engine, senders)
            if done.failed or done.dead:
                say(f"{done.sent} sent, {done.failed} to be tried again, {done.dead} given up")
            if once:
                break
            if not done.sent:
                time.sleep(settings.send_every_seconds)
    finally:
        engine.dispose()


@app.command()
def alerts(
    state: Annotated[str | None, Flag(help="open, acknowledged, silenced or resolved")] = None,
    database_url: Annotated[str | None, Flag(help="postgresql://...; default: embedded")] = None,
    state_dir: Annotated[Path | None, Flag(help="models and the embedded database")] = None,
) -> None:
    """List alerts, newest first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from alerts.senders.console import printable
    from monitor import assemble
    from monitor.settings import load_settings
    from storage.queries import list_alerts, outbox_counts

    engine = assemble.open_database(load_settings(database_url=database_url, state_dir=state_dir))
    with engine.connect() as connection:
        rows, deliveries = list_alerts(connection, state), outbox_counts(connection)
    table = Table("severity", "state", "alert", "count", "score", "opened", "top message", box=None)
    for row in rows:
        top = row["top_message"]
        table.add_row(
            row["severity"], row["state"], escape(printable(row["dedup_key"])), str(row["count"]),
            f"{row['top_score']:.2f}",
            f"{row['opened_at']:%Y-%m-%d %H:%M:%S}", escape(f"{top['source']}/{top['partition']}/{top['offset']}"),
        )  # fmt: skip
    Console().print(table)
    typer.echo("deliveries: " + ", ".join(f"{n} {kind}" for kind, n in deliveries.items()))
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
