"""`awry grafana`: provisioning files for a Grafana that starts, or a push to one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.app import app, say

grafana = typer.Typer(help="Grafana: write its provisioning files, or push dashboards to one.", no_args_is_help=True)
app.add_typer(grafana, name="grafana")


@grafana.command()
def write(folder: Annotated[Path, typer.Argument(help="where dashboards/ and provisioning/ go")]) -> None:
    """Write data sources, dashboards, alert rules and an example of a contact point.

    Hosts and database are those of docker-compose.yml: change provisioning/datasources/awry.yml for others.
    """
    from alerts.dashboards.provisioning import write as written

    changed = written(folder)
    for path in changed:
        say(f"wrote {path}")
    if not changed:
        say(f"everything in {folder} is up to date")


@grafana.command()
def push(
    url: Annotated[str, typer.Option(help="address of Grafana, such as https://grafana.example")],
    token: Annotated[
        str,
        typer.Option(envvar="GRAFANA_TOKEN", help="of a service account with the role Editor", show_default=False),
    ],
    folder: Annotated[str, typer.Option(help="title of the folder; its uid is awry")] = "awry",
    postgres: Annotated[str, typer.Option(help="uid of the data source for awry's database")] = "awry-postgres",
    prometheus: Annotated[str, typer.Option(help="uid of the data source for awry's metrics")] = "awry-prometheus",
    database_url: Annotated[
        str | None, typer.Option(help="postgresql://..., for marks of probes and thresholds; default: embedded")
    ] = None,
    state_dir: Annotated[Path | None, typer.Option(help="models and the embedded database")] = None,
    marks: Annotated[bool, typer.Option("--marks/--no-marks", help="annotations for probes and thresholds")] = True,
) -> None:
    """Push folder, dashboards and annotations to a Grafana that runs. A second push updates, and duplicates nothing."""
    from alerts.dashboards.changes import changes
    from alerts.dashboards.push import push as pushed
    from monitor.service import bootstrap
    from monitor.settings import load_settings

    found = []
    if marks:
        engine = bootstrap.open_database(load_settings(database_url=database_url, state_dir=state_dir), say)
        with engine.connect() as connection:
            found = changes(connection)
        engine.dispose()
    uids = {"awry-postgres": postgres, "awry-prometheus": prometheus}
    for line in pushed(url, token, folder, uids, found):
        say(line)
