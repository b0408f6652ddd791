"""`awry run`: the worker."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands, takes

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Named as the settings that they override."""

    source: o.Source = None
    start_from: o.StartFrom = None
    kafka_group: o.KafkaGroup = None
    follow: o.Follow = None
    readings: o.Readings = None
    model: o.Model = None
    adapter: o.Adapter = None
    scale: o.Scale = None
    engine: o.Engine = None
    vllm_args: o.VllmArgs = None
    chat_template: o.ChatTemplate = None
    probes: o.Probes = None
    mitigate: o.Mitigate = None
    also_plain: o.AlsoPlain = None
    answers_out: o.AnswersOut = None
    verdicts_out: o.VerdictsOut = None
    dead_letters_out: o.DeadLettersOut = None
    privacy: o.Privacy = None
    rules_file: o.RulesFile = None
    listen: o.Listen = None
    database_url: o.DatabaseUrl = None
    state_dir: o.StateDir = None
    logs: o.Logs = None


@commands.command()
@takes(RunFlags)
def run(flags: RunFlags) -> None:
    """Score a stream of messages, store every score, open alerts. Ctrl-C drains and exits.

    What is not given here comes from the environment or awry.toml (awry config list has both). --from is for a consumer
    group that has no offsets yet. Prints progress on standard error; replies, verdicts and dead letters go where their
    flags say.
    """
    from monitor.service.run import run as run_worker
    from monitor.settings import load_settings
    from monitor.telemetry.logs import configure

    settings = load_settings(**settings_flags(flags))
    configure()
    run_worker(settings, say)


def settings_flags(flags: RunFlags) -> dict[str, Any]:
    """The flags as settings; those that are not given are None."""
    several = {"probes": tuple(flags.probes or ()) or None, "vllm_args": tuple(flags.vllm_args or ()) or None}
    return asdict(flags) | several
