"""`awry deploy`: the files that a deployment starts from."""

from __future__ import annotations

from monitor.cli import options as o
from monitor.cli.output import say
from monitor.cli.tree import Commands

commands = Commands("Deployment files: write them.")


@commands.command()
def write(folder: o.DeployFolder) -> None:
    """Write what the wheel brings: rules, Prometheus, PostgreSQL roles, Grafana, Kafka topics, Kubernetes.

    Prints the files on standard error. A file that was changed there is never overwritten: then nothing is written.
    """
    from monitor.deploy_files import write as write_files

    written = write_files(folder)
    for path in written:
        say(f"wrote {path}")
    if not written:
        say(f"everything in {folder} is up to date")
