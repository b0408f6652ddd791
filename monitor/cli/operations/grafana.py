"""`awry grafana`: provisioning files for a Grafana that starts, or a push to one that runs."""

from __future__ import annotations

from monitor.cli import options as o
from monitor.cli.inputs import reading
from monitor.cli.output import say
from monitor.cli.tree import Commands

commands = Commands("Grafana: write its provisioning files, or push dashboards to one.")


@commands.command()
def write(folder: o.GrafanaFolder) -> None:
    """Write data sources, dashboards, alert rules and an example of a contact point.

    Hosts and database are those of docker-compose.yml: change provisioning/datasources/awry.yml for others. Prints the
    files that changed on standard error.
    """
    from alerts.dashboards.provisioning import write as write_files

    changed = write_files(folder)
    for path in changed:
        say(f"wrote {path}")
    if not changed:
        say(f"everything in {folder} is up to date")


@commands.command()
def push(
    url: o.Url,
    token: o.GrafanaToken,
    folder: o.FolderTitle = "awry",
    postgres: o.Postgres = "awry-postgres",
    prometheus: o.Prometheus = "awry-prometheus",
    database_url: o.DatabaseUrl = None,
    state_dir: o.StateDir = None,
    marks: o.Marks = True,
) -> None:
    """Push folder, dashboards and annotations to a Grafana that runs. A second push updates, and duplicates nothing.

    The database is read for annotations only. Prints what was pushed on standard error.
    """
    from alerts.dashboards.changes import Change, changes
    from alerts.dashboards.push import push as push_all

    annotations: list[Change] = []
    if marks:
        with reading(database_url, state_dir, say) as connection:
            annotations = changes(connection)
    uids = {"awry-postgres": postgres, "awry-prometheus": prometheus}
    for line in push_all(url, token, folder, uids, annotations):
        say(line)
