"""`awry doctor`: whether all that awry needs is there and works."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from monitor.cli import options as o
from monitor.cli.output import print_json
from monitor.cli.processes.run import RunFlags, settings_flags
from monitor.cli.tree import Commands, takes

commands = Commands()


@dataclass(frozen=True, kw_only=True)
class DoctorFlags(RunFlags):
    """Those of awry run: what it would meet with them."""

    no_model: o.NoModel = False
    as_json: o.Json = False


@commands.command()
@takes(DoctorFlags)
def doctor(flags: DoctorFlags) -> None:
    """Look at all that awry needs and say for each part: ok, warning or fault, and what to do.

    Settings, disk, database (version, encoding, schema, roles and rights, partitions, clock), Kafka (topics, group,
    lag), ports, destinations, and the model with its probes, which takes as long as the start of a worker. Changes
    nothing. Exit status by the worst: 0 ok, 1 warning, 2 fault.
    """
    from monitor.cli.render.doctor import print_finding
    from monitor.doctor.examine import examine
    from monitor.doctor.finding import LEVELS, worst

    given = {name: value for name, value in settings_flags(flags).items() if value is not None}
    no_model, as_json = given.pop("no_model"), given.pop("as_json")
    findings = []
    for finding in examine(given, with_model=not no_model):
        findings.append(finding)
        if not as_json:
            print_finding(finding)
    level = worst(findings)
    if as_json:
        print_json({"worst": level, "findings": findings})
    raise typer.Exit(LEVELS.index(level))
