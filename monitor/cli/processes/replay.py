"""`awry replay`: traffic that went by, scored with a new probe."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands, takes

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class ReplayFlags:
    """Named as the settings that they override, but for `probe` and `stored`."""

    probe: o.Probe
    start_from: o.ReplayFrom
    source: o.Source = None
    stored: o.Stored = False
    model: o.Model = None
    adapter: o.Adapter = None
    scale: o.Scale = None
    chat_template: o.ChatTemplate = None
    listen: o.Listen = None
    database_url: o.DatabaseUrl = None
    state_dir: o.StateDir = None
    logs: o.Logs = None


@commands.command()
@takes(ReplayFlags)
def replay(flags: ReplayFlags) -> None:
    """Score stored or retained traffic with a new probe, from a time up to now, and stop.

    It has a consumer group of its own, so that live offsets stay; it notifies nobody and writes to no topic. Without
    --source it reads the live source. Prints progress on standard error.
    """
    from monitor.service.replay import run_replay
    from monitor.settings import load_settings
    from monitor.telemetry.logs import configure

    given = asdict(flags)
    stored, probe = given.pop("stored"), given.pop("probe")
    settings = load_settings(**given, probes=(probe,))
    configure()
    run_replay(settings, say, stored=stored)
