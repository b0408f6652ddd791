"""`awry send`: rules that look at the tables, and deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.cli import options as o
from monitor.cli.inputs import opened_by
from monitor.cli.output import say
from monitor.cli.tree import Commands

if TYPE_CHECKING:
    from alerts.delivery.deliver import Delivered

commands = Commands()


@commands.command()
def send(
    once: o.Once = False,
    rules_file: o.RulesFile = None,
    listen: o.Listen = None,
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
) -> None:
    """Evaluate rate and monitor rules, and deliver alerts to their destinations, with retries.

    Prints one line on standard error for each round with failures; a console destination prints alerts on standard
    output.
    """
    from alerts.delivery import loop
    from alerts.delivery.channel import make_channels
    from alerts.delivery.deliver import deliver_due
    from alerts.links import Links
    from alerts.rules.references import about_rules
    from monitor.service import bootstrap
    from monitor.service.rollup_loop import rolling_up
    from monitor.service.rule_loop import RuleEvaluation, evaluating
    from monitor.service.run import listening, until_signal
    from monitor.settings import load_settings
    from monitor.telemetry import metrics

    settings = load_settings(database_url=database_url, state_dir=state_dir, listen=listen, rules_file=rules_file)
    rules = bootstrap.load_rules(settings)
    with opened_by(settings) as engine:
        channels = make_channels(
            settings.destinations,
            Links(settings.runbook_url, settings.dashboard_url, about_rules(rules.all)),
            settings.routing,
        )
        metrics.start_at_zero(destination=channels)
        with until_signal() as stopped, listening(settings.listen, engine, say):
            if once:
                RuleEvaluation(engine, rules, settings.routing, say)()
                _report(deliver_due(engine, channels))
                return
            with (
                evaluating(engine, rules, settings.routing, settings.rules_every_seconds, say),
                rolling_up(engine, say),
            ):
                loop.run(engine, channels, stopped, settings.send_every_seconds, _report, say)


def _report(done: Delivered) -> None:
    """Count what was delivered, and say what failed."""
    from monitor.telemetry import metrics

    for result, number in done.by_destination.items():
        metrics.DELIVERIES.labels(*result).inc(number)
    if done.failed or done.dead or done.gone:
        names = ", ".join(sorted({name for name, result in done.by_destination if result != "sent"}))
        gone = f", {done.gone} gone: it is sent nothing more until awry outbox enable" if done.gone else ""
        say(f"{names}: {done.sent} sent, {done.failed} to be tried again, {done.dead} given up{gone}")
